"""The port to engines: what a backend does of its own, and what it says that it can do."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from durably.core.deltas import DeltaStore
from durably.core.errors import UnsupportedFeatureError
from durably.core.events import Event
from durably.core.flow_support import NO_RULES, Support
from durably.core.history import History, StepRecord
from durably.core.reference import FunctionRef
from durably.core.retention import Pruned, Retention
from durably.core.run_filter import FoundRuns, RunFilter
from durably.core.run_view import RunStatus, RunView
from durably.core.stream import StreamReader
from durably.core.worker_view import WorkerView

FORGOTTEN_ATTEMPTS = "errors of attempts that another one followed, in history()"
"""The gap of an engine whose histories may lack the record of a failed attempt."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend can do. A missing feature is refused at start-up, with the reason.

    Attributes:
        durable: Runs survive the process.
        multi_process: Several workers may share the runs.
        virtual_time: Sleeping takes no time.
        replay: A run can be replayed from the start after each step (``evict="always"``).
        max_payload_bytes: The largest value a step may return, as JSON.
        flow_control: How it keeps each rule of :data:`~durably.core.flow_support.FLOW_CONTROL`.
        gaps: The missing features, each with the reason.
    """

    durable: bool
    multi_process: bool
    virtual_time: bool = False
    replay: bool = True
    max_payload_bytes: int
    flow_control: Mapping[str, Support] = field(default_factory=lambda: NO_RULES)
    gaps: Mapping[str, str] = field(default_factory=dict)


class Engine(ABC):
    """What each engine provides. Programs use what stands on it: :class:`~durably.core.Backend` and its runs.

    Attributes:
        name: What it is called.
        capabilities: What it can do.
        stream_reader: What puts the records and the deltas of a run in one order.
        longest_look: Seconds between two looks at a run whose stream is read, once nothing happens in it.
        deltas: Where the pieces of streamed answers are kept, or ``None``: nowhere.
    """

    name: ClassVar[str]
    capabilities: Capabilities
    stream_reader: ClassVar[type[StreamReader]] = StreamReader
    longest_look: ClassVar[float] = 1.0
    deltas: DeltaStore | None = None

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None: ...

    async def received(self, event: Event) -> Event | None:
        """What was received under the id of an event, or ``None`` if nothing was, or the engine does not know."""
        return None

    def redact(self, text: str) -> str:
        """Mask the registered secrets in a text. An engine that has none returns it as it is."""
        return text

    def now(self) -> float:
        """The time that this engine goes by, in seconds since 1970."""
        return time.time()

    async def work_until(self, stop: asyncio.Event) -> None:
        """Wait until the worker is told to stop, or ends by itself; raises what it died of."""
        await stop.wait()

    async def prune_runs(self, rule: Retention | None) -> Pruned:
        """Forget finished runs by a rule; without one, by the functions' and the backend's own."""
        raise UnsupportedFeatureError(backend=self.name, feature="prune()", reason="it declares no way to forget runs")

    async def live_workers(self) -> list[WorkerView]:
        """The workers that live now."""
        raise UnsupportedFeatureError(backend=self.name, feature="workers()", reason="it declares no way to list them")

    @abstractmethod
    async def start_run(
        self, function: FunctionRef[Any, Any], data: str, run_id: str | None, tags: Sequence[str] = ()
    ) -> RunView:
        """Start a run, or find the one that has this id.

        Args:
            function: The function.
            data: The input as JSON text, checked.
            run_id: The id, or ``None`` for a random one.
            tags: Its tags, checked; a run that is there keeps its own.

        Raises:
            RunExistsError: If the id belongs to a run of another function, or with another input.
        """

    @abstractmethod
    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        """A page of the runs that fit, newest first. See :meth:`runs`.

        Args:
            where: Which runs.
            after: The place behind which it begins, or ``None``.
            before: The place before which it ends, or ``None``.
            limit: How many at most.
        """

    @abstractmethod
    async def tally_runs(self, where: RunFilter) -> dict[RunStatus, int]:
        """How many runs fit, by where they stand."""

    @abstractmethod
    async def send_events(self, events: Sequence[Event]) -> list[str]:
        """Take events that have ids and were checked, in their order; their ids."""

    @abstractmethod
    async def view(self, run_id: str) -> RunView:
        """How a run stands.

        Raises:
            RunNotFoundError: If there is none of this id.
        """

    @abstractmethod
    async def wait(self, run_id: str) -> RunView:
        """Wait until a run has ended; how it ended. Raises what :meth:`view` raises."""

    @abstractmethod
    async def cancel(self, run_id: str) -> None:
        """Cancel a run and the runs it waits for; nothing for one that has ended. Raises what :meth:`view` raises."""

    @abstractmethod
    async def history(self, run_id: str) -> History:
        """The records of a run. Raises what :meth:`view` raises."""

    async def records_since(self, run_id: str, seq: int) -> Sequence[StepRecord]:
        """The records of a run from a number on. Raises what :meth:`view` raises."""
        return (await self.history(run_id)).records[seq:]

    async def watch(self, run_id: str, seconds: float) -> None:
        """Wait, in real time, until something may have happened in a run: so many seconds, or less."""
        await asyncio.sleep(seconds)

    async def retry_run(self, run_id: str) -> RunView:
        """Take up a failed run again; see :meth:`Run.retry`. An engine that cannot refuses."""
        raise self._lacks("retry", "Run.retry()")

    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        """Start a run with the beginning of another one's records; see :meth:`Run.fork`.

        Args:
            run_id: The run that it comes from.
            after: The key of the step where that is cut.
            new_id: The id of the new run, checked.
        """
        raise self._lacks("fork", "Run.fork()")

    def _lacks(self, gap: str, feature: str) -> UnsupportedFeatureError:
        reason = self.capabilities.gaps.get(gap, "this engine has nothing of the kind")
        return UnsupportedFeatureError(backend=self.name, feature=feature, reason=reason)

    def known_functions(self) -> Collection[str] | None:
        """The ids of the functions that a worker has ever served, or ``None`` if this engine cannot tell."""
        return None
