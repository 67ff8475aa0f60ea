"""What the server has of a run that a worker takes up in its middle, and whether the code still fits it.

Temporal's own check compares commands, and only in the first attempt of a task does it tell the server what it found.
So a worker reads the records of such a run itself, and its code is held to them, step by step, before any command is
made.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.common import RawValue

from durably.backends.temporal.crash import CRASHED
from durably.backends.temporal.history.reader import HistoryReader
from durably.backends.temporal.payloads import GIVEN_UP, STUCK, text_of
from durably.core import DurablyError, NonDeterminismError
from durably.core.errors import CrashLoopError, error_to_json
from durably.core.history import Kind, StepRecord
from durably.core.replay import Recorded
from durably.core.step_keys import Scope

__all__ = ["LostTasks", "RecordedHistories", "RecordedHistory", "read_history"]

T = TypeVar("T")

READ_TIMEOUT = 1.5
"""How many seconds a workflow task waits for its run's records: Temporal takes one that needs 2 for stuck."""

UNDER_WAY = 2**63
"""In the place of the event that started the task which is under way: later than all others."""


class LostTasks:
    """How many attempts of workflow tasks were lost: a crash cuts off the task, and the closures that ran in it.

    The server writes down the first attempt that was lost, as an event, and counts the others. So they count as crashes
    if the first of them was one: it ran out of time. A task that failed is no crash.

    Attributes:
        since_when: When the first attempt of the task that is under way was cut off, in seconds since 1970; 0 if none
            was.
    """

    def __init__(self) -> None:
        self.since_when = 0.0
        self._tasks: list[int] = []
        self._sums = [(0, 0)]
        self._events = self._attempt = 0

    def read(self, event: HistoryEvent) -> None:
        """Take an event of the history into account."""
        if event.HasField("workflow_task_scheduled_event_attributes"):
            self._attempt = event.workflow_task_scheduled_event_attributes.attempt
        elif event.HasField("workflow_task_failed_event_attributes"):
            self._lose(event, crashed=CRASHED in event.workflow_task_failed_event_attributes.failure.message)
        elif event.HasField("workflow_task_timed_out_event_attributes"):
            # One that timed out before a worker had it cut nothing off.
            if event.workflow_task_timed_out_event_attributes.started_event_id > 0:
                self._lose(event, crashed=True)
        elif event.HasField("workflow_task_completed_event_attributes"):
            self._add(event.workflow_task_completed_event_attributes.started_event_id)

    def _lose(self, event: HistoryEvent, *, crashed: bool) -> None:
        if crashed and not self._events:
            self.since_when = event.event_time.ToNanoseconds() / 1e9
        self._events += 1

    def end(self, attempt: int) -> None:
        """The history is read; the task that is under way is at this attempt."""
        self._attempt = max(self._attempt, attempt)
        since_when = self.since_when
        self._add(UNDER_WAY)
        self.since_when = since_when

    def _add(self, started: int) -> None:
        self._tasks.append(started)
        lost = max(self._events, self._attempt - 1)
        before, crashes = self._sums[-1]
        self._sums.append((before + lost, crashes + (lost if self.since_when else 0)))
        self._events = self._attempt = 0
        self.since_when = 0.0

    def since(self, started: int) -> tuple[int, int]:
        """How many were lost since the task which began with this event, and how many of them by crashes."""
        before = self._sums[bisect_left(self._tasks, started)]
        return self._sums[-1][0] - before[0], self._sums[-1][1] - before[1]

    @property
    def crashes_now(self) -> int:
        """How many attempts of the task that is under way were cut off by crashes."""
        return self.since(UNDER_WAY)[1]

    @property
    def tasks(self) -> int:
        """How many tasks there were, with the one that is under way."""
        return len(self._tasks)

    def limit_crashes_now(self, crashes: int) -> None:
        """No more attempts of the task that is under way were cut off by crashes: the others only took too long."""
        before = self._sums[-2][1]
        self._sums[-1] = (self._sums[-1][0], min(self._sums[-1][1], before + crashes))


class RecordedHistory:
    """One history of a run as it was when a worker took the run up. It holds one attempt of the function's code.

    Args:
        events: The history.
        records: The records in it, with those of steps that are under way.
        lost_tasks: What was lost of it.

    Attributes:
        error: Why the run is to be failed: what of the code did not fit, once that was seen, or that it crashes.
        given_up: The crashes that an earlier task began to fail it for.
    """

    def __init__(self, events: Sequence[HistoryEvent], records: Sequence[StepRecord], lost_tasks: LostTasks) -> None:
        self.events = events
        self.records = records
        self.lost_tasks = lost_tasks
        self.error: DurablyError | None = None
        self.given_up: CrashLoopError | None = None
        self._recorded = Recorded(records)
        self._scopes: dict[str, Scope] = {}
        self._reached = next((record.key for record in reversed(records) if record.key), "")

    @property
    def closed(self) -> bool:
        """Whether the run has ended: it is replayed only to be looked at."""
        return bool(self.records) and self.records[-1].kind == "run" and self.records[-1].final

    def take(self, prefix: str, key: str, kind: Kind, asked: str) -> None:
        """The code asks for a step in the scope of this prefix.

        Raises:
            NonDeterminismError: If the run recorded something else at this place; so do the next three.
        """
        self._reached = key
        self.compare(lambda: self._recorded.take(self._scope(prefix), key, kind, asked))

    def take_gather(self, prefix: str, key: str, branches: int) -> None:
        """The code asks for a gather."""
        self.compare(lambda: self._recorded.take_gather(self._scope(prefix), key, branches))

    def check_end(self, prefix: str) -> None:
        """The code of a scope has ended."""
        self.compare(lambda: self._recorded.check_end(self._scope(prefix)))

    def compare(self, compare: Callable[[], T]) -> T:
        """Hold the code to the records in one respect, and note it if it does not fit."""
        try:
            return compare()
        except NonDeterminismError as error:
            # Noted as well as raised: what the code does after that must not reach the server.
            self.error = error
            raise

    def check_failure(self, error: Exception, earlier: Collection[str]) -> None:
        """The code has failed.

        Args:
            error: With what.
            earlier: The keys of the steps that earlier histories recorded: code may fail before it comes by them again,
                as long as no further step has begun.
        """
        if isinstance(error, NonDeterminismError):  # its input does not fit any more
            self.error = error
            raise error
        if not any(record.key and record.key not in earlier for record in self.records):
            return
        try:
            self._recorded.check_end(self._scope(""))
        except NonDeterminismError as left:
            asked = f"nothing more: the function failed with {type(error).__name__}: {error}"
            self.error = NonDeterminismError(step=left.step, recorded=left.recorded, asked=asked)
            raise self.error from error

    def mismatch(self, message: str) -> NonDeterminismError:
        """The error for what only Temporal's own check has seen."""
        recorded = "another command in Temporal's history"
        return NonDeterminismError(step=self._reached, recorded=recorded, asked=message)

    def end_replay(self) -> None:
        """The replay is over: only what was lost is still asked for."""
        # A run that waits may stay in the cache for months, and its history with it.
        self.events, self.records, self._recorded = (), (), Recorded(())

    def _scope(self, prefix: str) -> Scope:
        return self._scopes.setdefault(prefix, Scope(prefix))


async def read_history(client: Client, run_id: str, history: str) -> RecordedHistory:
    """Read a history of a run.

    Args:
        client: The way to the server.
        run_id: The run.
        history: Temporal's id of the history.
    """
    handle = client.get_workflow_handle(run_id, run_id=history)
    reader = HistoryReader(client.data_converter, run_id)
    lost_tasks = LostTasks()
    events: list[HistoryEvent] = []
    given_up: CrashLoopError | None = None
    async for event in handle.fetch_history_events():
        events.append(event)
        lost_tasks.read(event)
        await reader.read(event)
        given_up = given_up or await _given_up(client, event)
    lost_tasks.end((await handle.describe()).raw_description.pending_workflow_task.attempt)
    found = RecordedHistory(events, [*reader.records, *reader.under_way()], lost_tasks)
    found.given_up = given_up
    return found


async def _given_up(client: Client, event: HistoryEvent) -> CrashLoopError | None:
    """The error that this event notes in the memo of a run, if it does."""
    memo = event.workflow_properties_modified_event_attributes.upserted_memo.fields
    if GIVEN_UP not in memo:
        return None
    [noted] = await client.data_converter.decode([memo[GIVEN_UP]], [RawValue])
    error = json.loads(text_of(noted))
    return CrashLoopError(crashes=error["crashes"], since=error["since"])


class RecordedHistories:
    """The histories of the runs that a worker is taking up, by Temporal's id of them.

    Args:
        client: The way to the server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading: dict[str, Future[RecordedHistory]] = {}
        self._mismatches: dict[str, NonDeterminismError] = {}
        self._crashes: dict[str, tuple[int, int]] = {}
        self._told: set[str] = set()

    def arm(self) -> None:
        """Remember the loop of the worker: a workflow runs in a thread of its own."""
        self._loop = asyncio.get_running_loop()

    def get(self, history: str) -> RecordedHistory | None:
        """The history of a run whose code is being replayed, or ``None`` if it is not."""
        reading = self._reading.get(history)
        return reading.result() if reading is not None and reading.done() else None

    def load(self, run_id: str, history: str) -> RecordedHistory:
        """Read a history of a run. Called in the thread of its workflow.

        Raises:
            RuntimeError: If that takes too long. The reading goes on, and the next try of the task finds it done.
        """
        reading = self._reading.get(history)
        if reading is None:
            reading = self._reading[history] = self._start(self._read(run_id, history))
        try:
            found = reading.result(READ_TIMEOUT)
        except TimeoutError:
            raise RuntimeError(f"the history of run {run_id!r} is still being read; its task is tried again") from None
        except Exception:
            self._reading.pop(history, None)
            raise
        found.error = self._mismatches.pop(history, None)
        return found

    async def _read(self, run_id: str, history: str) -> RecordedHistory:
        found = await read_history(self._client, run_id, history)
        lost = found.lost_tasks
        task, crashes = self._crashes.get(history, (0, 0))
        if task == lost.tasks:
            # This process has had the task since, and lives: it has not crashed, but was too slow.
            lost.limit_crashes_now(crashes)
        else:
            self._crashes[history] = (lost.tasks, lost.crashes_now)
        return found

    def forget(self, history: str) -> None:
        """The run's task is done: what was lost of it counts no more."""
        self._crashes.pop(history, None)

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

    def note_stuck(self, run_id: str, history: str, found: RecordedHistory, error: DurablyError) -> None:
        """Leave in the history of a run, once, what of this worker's code does not fit it."""
        data = error_to_json(error)
        if history in self._told or any((each.status, each.error) == ("stuck", data) for each in found.records[-1:]):
            return
        self._told.add(history)
        handle = self._client.get_workflow_handle(run_id, run_id=history)
        self._start(handle.signal(STUCK, data))

    def note_mismatch(self, history: str, error: NonDeterminismError) -> None:
        """Remember that the code does not fit: the next try of the run's task ends it."""
        self._mismatches[history] = error
