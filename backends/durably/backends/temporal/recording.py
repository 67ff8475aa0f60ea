"""What the server has of a run that a worker takes up in its middle, and whether the code still fits it.

Temporal's own check compares commands, and only in the first attempt of a task does it tell the server what it found.
So a worker reads the records of such a run itself, and its code is held to them, step by step, before any command is
made.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from durably.backends.temporal.history import Recorder
from durably.core import NonDeterminismError, StepRecord
from durably.core.history import Kind
from durably.core.keys import Scope
from durably.core.replay import Recorded

__all__ = ["Expected", "Recording", "Recordings", "read_recording"]

T = TypeVar("T")

PATIENCE = 1.5
"""How many seconds a workflow task waits for its run's records: Temporal takes one that needs 2 for stuck."""


class Expected:
    """What one attempt of the code must ask for, as far as a recording says.

    Args:
        recording: The recording; what does not fit it is noted there.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._recorded = Recorded(recording.records)
        self._scopes: dict[str, Scope] = {}

    def take(self, prefix: str, key: str, kind: Kind, asked: str) -> None:
        """The code asks for a step in the scope of this prefix.

        Raises:
            NonDeterminismError: If the run recorded something else at this place; so do the other methods.
        """
        self._recording.reached = key
        self._look(lambda: self._recorded.take(self._scope(prefix), key, kind, asked))

    def take_gather(self, prefix: str, key: str, branches: int) -> None:
        """The code asks for a gather."""
        self._look(lambda: self._recorded.take_gather(self._scope(prefix), key, branches))

    def check_end(self, prefix: str) -> None:
        """The code of a scope has ended."""
        self._look(lambda: self._recorded.check_end(self._scope(prefix)))

    def check_failure(self, attempt: int, error: Exception) -> None:
        """The attempt fails."""
        if attempt not in self._recording.failures and not self._recorded.exhausted(self._scope("")):
            self._look(lambda: self._refuse_failure(error))

    def _refuse_failure(self, error: Exception) -> None:
        try:
            self._recorded.check_end(self._scope(""))
        except NonDeterminismError as left:
            asked = f"nothing more: the function failed with {type(error).__name__}: {error}"
            raise NonDeterminismError(step=left.step, recorded=left.recorded, asked=asked) from None

    def _scope(self, prefix: str) -> Scope:
        return self._scopes.setdefault(prefix, Scope(prefix))

    def _look(self, look: Callable[[], object]) -> None:
        try:
            look()
        except NonDeterminismError as error:
            self._recording.error = error
            raise


@dataclass
class Recording:
    """One history of a run as it was when a worker took the run up.

    Attributes:
        events: The history.
        records: The records in it, with those of steps that are under way.
        tries: Workflow tasks by the event that started them, with how many tries of each were lost before.
        pending: How many tries of the task that is under way were lost.
        error: What of the code did not fit, once that was seen.
        reached: The last step the code asked for.
    """

    events: Sequence[HistoryEvent]
    records: list[StepRecord]
    tries: Sequence[tuple[int, int]] = ()
    pending: int = 0
    error: NonDeterminismError | None = None
    reached: str = ""
    failures: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.failures = frozenset(each.attempt for each in self.records if not each.key and each.status == "retrying")
        self._sums = list(accumulate((lost for _, lost in self.tries), initial=0))

    @property
    def closed(self) -> bool:
        """Whether the run has ended: it is replayed only to be looked at."""
        return bool(self.records) and self.records[-1].kind == "run" and self.records[-1].final

    def lost_since(self, event_id: int) -> int:
        """How many tries of workflow tasks were lost since the task that this event started."""
        place = bisect.bisect_left([started for started, _ in self.tries], event_id)
        return self._sums[-1] - self._sums[place] + self.pending

    def refuse(self, message: str) -> NonDeterminismError:
        """The error for what only Temporal's own check has seen."""
        last = next((record.key for record in reversed(self.records) if record.key), "")
        return NonDeterminismError(
            step=self.reached or last, recorded="another command in Temporal's history", asked=message
        )


async def read_recording(client: Client, run_id: str, history: str) -> Recording:
    """Read a history of a run.

    Args:
        client: The way to the server.
        run_id: The run.
        history: Temporal's id of the history.
    """
    handle = client.get_workflow_handle(run_id, run_id=history)
    recorder = Recorder(client, run_id)
    events: list[HistoryEvent] = []
    tries: list[tuple[int, int]] = []
    attempt = 1
    async for event in handle.fetch_history_events():
        events.append(event)
        await recorder.read(event)
        if event.HasField("workflow_task_scheduled_event_attributes"):
            attempt = event.workflow_task_scheduled_event_attributes.attempt
        elif event.HasField("workflow_task_completed_event_attributes") and attempt > 1:
            tries.append((event.workflow_task_completed_event_attributes.started_event_id, attempt - 1))
    pending = (await handle.describe()).raw_description.pending_workflow_task.attempt
    return Recording(events, [*recorder.records, *recorder.begun()], tries, max(0, pending - 1))


class Recordings:
    """The recordings of the runs that a worker is taking up, by Temporal's id of their histories.

    Args:
        client: The way to the server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading: dict[str, Future[Recording]] = {}
        self._refused: dict[str, NonDeterminismError] = {}

    def arm(self) -> None:
        """Remember the loop of the worker: a workflow runs in a thread of its own."""
        self._loop = asyncio.get_running_loop()

    def get(self, history: str) -> Recording | None:
        """The recording of a run whose code is being replayed, or ``None`` if it is not."""
        reading = self._reading.get(history)
        return reading.result() if reading is not None and reading.done() else None

    def take_up(self, run_id: str, history: str) -> Recording:
        """Read the recording of a run. Called in the thread of its workflow.

        Raises:
            RuntimeError: If that takes too long. The reading goes on, and the next try of the task finds it done.
        """
        reading = self._reading.get(history)
        if reading is None:
            reading = self._reading[history] = self._start(read_recording(self._client, run_id, history))
        try:
            recording = reading.result(PATIENCE)
        except TimeoutError:
            raise RuntimeError(f"the history of run {run_id!r} is still being read; its task is tried again") from None
        except Exception:
            self._reading.pop(history, None)
            raise
        recording.error = self._refused.pop(history, None)
        return recording

    def _start(self, reading: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop is None:
            reading.close()
            raise RuntimeError("the worker has not been started")
        return asyncio.run_coroutine_threadsafe(reading, self._loop)

    def drop(self, history: str) -> None:
        """The run has been taken up, or has left this worker."""
        reading = self._reading.get(history)
        if reading is not None and reading.done():
            del self._reading[history]

    def refuse(self, history: str, error: NonDeterminismError) -> None:
        """Remember that the code does not fit: the next try of the run's task ends it."""
        self._refused[history] = error
