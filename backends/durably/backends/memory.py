"""The deterministic replayer: a journal in memory, a clock that jumps, an order fixed by a seed."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from typing import Any, ClassVar, Literal

from pydantic import SecretStr

from durably.backends.replay.backend import MAX_RESTING, ReplayBackend
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.flow.rules import FLOW_RULES
from durably.backends.replay.flow.store import MemoryFlowStore
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Received, RunRow, Subscription
from durably.backends.replay.memory_index import LaterEvents, LiveRuns
from durably.backends.replay.memory_pruning import MemoryPruning
from durably.backends.replay.pruning import PrunableStorage
from durably.core import Capabilities, Event, Function, MemorySessions, Observer, Retention
from durably.core.deltas import DeltaStore, MemoryDeltas
from durably.core.errors import StaleRunError
from durably.core.history import StepRecord
from durably.core.run_filter import RunFilter
from durably.core.run_view import RunStatus
from durably.core.standing import open_records
from durably.core.worker_view import WorkerView

__all__ = ["MemoryBackend", "MemoryJournal"]

AT_ONCE = 100
"""How many scheduled events are delivered in one transaction."""

ENDED = frozenset(status for status in RunStatus if status.final)
"""Asked for at every step, so looked up and not computed."""


class MemoryBackend(ReplayBackend):
    """Runs durable functions in this process, without threads, files or waiting.

    Time is virtual: it jumps to the next timer when nothing can run and somebody waits for a result. Use it in tests,
    and in programs that need no durability.

    Args:
        functions: The functions to run.
        journal: The journal of an earlier backend. Default: an empty one.
        clock: Default: a virtual clock that continues at the journal's last time.
        seed: Fixes the order of concurrent branches.
        evict: ``"always"`` drops a run from memory after each step and replays it from the start.
        resources: Clients, pools and secrets by name, for bodies.
        secrets: Texts to mask wherever something is written.
        max_payload_bytes: The largest value a step may return, as JSON.
        worker_name: The name in ``workers()``. Default: the program's name and its process id.
        max_runs: How many runs it executes at once. Waiting runs do not count.
        max_resting: How many waiting runs stay in memory. A run beyond that is replayed when it goes on. ``None``: all.
        max_steps: How many bodies it runs at once; the others wait.
        retention: How long finished runs are kept, unless their function says otherwise. Default: forever.
        observers: Receive the events of runs. See :class:`~durably.core.Observer`.
        deltas: The store for pieces of streamed answers. Default: with the journal.
    """

    name = "memory"
    capabilities = Capabilities(
        durable=False, multi_process=False, virtual_time=True, max_payload_bytes=8 * 2**20, flow_control=FLOW_RULES
    )
    journal: MemoryJournal

    def __init__(
        self,
        functions: Sequence[Function[Any, Any]] = (),
        *,
        journal: MemoryJournal | None = None,
        clock: VirtualClock | None = None,
        seed: int = 0,
        evict: Literal["never", "always"] = "never",
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
        worker_name: str = "",
        max_runs: int | None = None,
        max_resting: int | None = MAX_RESTING,
        max_steps: int | None = None,
        retention: Retention | None = None,
        observers: Iterable[Observer] = (),
        deltas: DeltaStore | None = None,
    ) -> None:
        journal = journal or MemoryJournal()
        super().__init__(
            functions,
            journal=journal,
            clock=clock or (VirtualClock(journal.latest) if journal.latest else VirtualClock()),
            threads=False,
            seed=seed,
            evict=evict,
            resources=resources,
            secrets=secrets,
            max_payload_bytes=max_payload_bytes,
            worker_name=worker_name,
            max_runs=max_runs,
            max_resting=max_resting,
            max_steps=max_steps,
            retention=retention,
            observers=observers,
            deltas=deltas or journal.deltas,
        )


class MemoryJournal(Journal):
    """A journal that lives as long as the object.

    Attributes:
        latest: The time of the newest record, or 0.
        deltas: The pieces of streamed answers.
    """

    prunes_by: ClassVar[type[MemoryPruning]] = MemoryPruning

    def __init__(self) -> None:
        self.latest = 0.0
        self.deltas = MemoryDeltas()
        self._runs: dict[str, RunRow] = {}
        self._numbers: dict[str, int] = {}
        self._records: dict[str, list[StepRecord]] = {}
        self._children: dict[str, list[str]] = {}
        self._events: dict[int, Received] = {}
        self._event_ids: dict[str, Received] = {}
        self._live = LiveRuns()
        self._scheduled = LaterEvents()
        self._subscriptions: dict[str, Subscription] = {}
        self._leases: dict[str, float] = {}
        self._views: dict[str, WorkerView] = {}
        self._pruning = self.prunes_by(
            self._runs,
            self._records,
            self._children,
            self._events,
            self._event_ids,
            self._forget,
        )
        self._flow = self.flow = MemoryFlowStore()
        self._sessions = self.sessions = MemorySessions()

    def _forget(self, run_id: str) -> None:
        del self._numbers[run_id]
        self._live.drop(run_id)
        self.deltas.forget(run_id)

    def left_behind(self) -> MemoryJournal:
        """Return a copy, as if every worker died at this moment. For the harness."""
        copy = MemoryJournal()
        copy.latest = self.latest
        copy.deltas = self.deltas.copy()
        copy._numbers.update(self._numbers)
        for row in self._runs.values():
            copy._put(row)
        copy._records.update({run_id: list(records) for run_id, records in self._records.items()})
        copy._children.update({run_id: list(children) for run_id, children in self._children.items()})
        copy._events.update(self._events)
        copy._event_ids.update(self._event_ids)
        copy._scheduled = self._scheduled.copy()
        copy._subscriptions = dict(self._subscriptions)
        copy._flow = copy.flow = self._flow.copy()
        copy._sessions = copy.sessions = self._sessions.copy()
        return copy

    def holds_the_same_as(self, copy: MemoryJournal) -> bool:
        """Return whether nothing was written since a copy was made. For the harness."""
        return (
            self._runs == copy._runs
            and all(len(records) == len(copy._records[run_id]) for run_id, records in self._records.items())
            and self._events.keys() == copy._events.keys()
            and self._scheduled == copy._scheduled
            and self._subscriptions == copy._subscriptions
            and self._flow.holds_the_same_as(copy._flow)
            and self.deltas.holds_the_same_as(copy.deltas)
        )

    @property
    def pruning(self) -> PrunableStorage:
        return self._pruning

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def changed(self) -> bool:
        return False

    def register(self, subscriptions: Sequence[Subscription]) -> None:
        self._subscriptions.update({each.function: each for each in subscriptions})

    def lease(self, worker: str, until: float) -> None:
        self._leases[worker] = until

    def introduce(self, view: WorkerView) -> bool:
        self._views[view.id] = view
        return True

    def workers(self, now: float) -> Sequence[WorkerView]:
        return [
            replace(view, runs=self._live.count(view.id), lease_until=self._leases[view.id])
            for view in self._views.values()
            if self._leases.get(view.id, 0.0) > now
        ]

    def release(self, worker: str) -> None:
        self._views.pop(worker, None)
        for _, run_id in self._live.of(worker):
            self._put(replace(self._runs[run_id], owner=None))
        self._leases.pop(worker, None)

    def living(self, now: float) -> Collection[str]:
        # Nobody renews a lease here: all workers are in this process, and live until they say otherwise.
        return {worker for worker, until in self._leases.items() if until}

    def bury(self, worker: str) -> None:
        self._leases[worker] = 0.0

    def get(self, run_id: str) -> RunRow | None:
        return self._runs.get(run_id)

    def records(self, run_id: str) -> list[StepRecord]:
        return list(self._records[run_id])

    def open_records(self, run_id: str) -> list[StepRecord]:
        return open_records(self._records[run_id])

    def count(self, run_id: str) -> int:
        return len(self._records[run_id])

    def first_record(self, run_id: str) -> StepRecord:
        return self._records[run_id][0]

    def last_record(self, run_id: str) -> StepRecord:
        return self._records[run_id][-1]

    def rows(self, function: str | None, status: RunStatus | None, limit: int) -> list[RunRow]:
        chosen = [
            row
            for row in reversed(self._runs.values())
            if function in (None, row.function) and status in (None, row.status)
        ]
        return chosen[:limit]

    def scan(self, where: RunFilter, place: int | None, *, back: bool) -> Iterator[tuple[int, RunRow]]:
        rows, numbers = list(self._runs.values()), list(self._numbers.values())
        if place is not None and back:
            rows = rows[bisect_right(numbers, place) :]
        elif place is not None:
            rows = rows[: bisect_left(numbers, place)]
        for row in rows if back else reversed(rows):
            if row.id in self._runs:
                yield self._numbers[row.id], self._runs[row.id]

    def cursor(self) -> int:
        return next(reversed(self._events), 0)

    def events_since(self, cursor: int, name: str) -> list[Received]:
        later = takewhile(lambda received: received.seq > cursor, reversed(self._events.values()))
        return [received for received in later if received.event.name == name][::-1]

    def log_page(self, cursor: int, names: Collection[str], limit: int) -> tuple[list[Received], int]:
        end = min(self.cursor(), cursor + limit)
        page = (self._events.get(seq) for seq in range(cursor + 1, end + 1))
        return [each for each in page if each is not None and each.event.name in names], end

    def received(self, event: Event) -> Event | None:
        found = self._event_ids.get(event.id or "")
        return None if found is None or found.event.name != event.name else found.event

    def next_due(self) -> float | None:
        return self._scheduled.next_due

    @contextmanager
    def transaction(self) -> Iterator[None]:
        yield

    def insert(self, row: RunRow) -> None:
        self._numbers[row.id] = 1 + self._numbers[next(reversed(self._runs))] if self._runs else 1
        self._put(row)
        self._records[row.id] = []
        if row.parent is not None:
            self._children.setdefault(row.parent, []).append(row.id)

    def append(self, record: StepRecord, fence: int) -> None:
        row = self._runs[record.run_id]
        records = self._records[record.run_id]
        if row.fence != fence or len(records) != record.seq or (records and row.status in ENDED):
            raise StaleRunError(run_id=record.run_id, fence=fence)
        records.append(record)
        self.latest = max(self.latest, record.at)  # those that a fork took over are older

    def set_status(self, run_id: str, status: RunStatus, ended_at: float) -> None:
        self._put(replace(self._runs[run_id], status=status, owner=None, ended_at=ended_at))

    def take(self, row: RunRow) -> None:
        self._put(row)

    def _put(self, row: RunRow) -> None:
        self._runs[row.id] = row
        self._live.put(row, self._numbers[row.id])

    def claimable(self, worker: str, served: Sequence[str], now: float) -> Iterable[RunRow]:
        dead = [each for each in self._live.owners if each != worker and self._leases.get(each, 0.0) <= now]
        found = heapq.merge(*(self._live.of(owner) for owner in (None, *dead)))
        return (row for _, run_id in found if (row := self._runs[run_id]).function in served)

    def live_singletons(self, function: str, singleton: str) -> Sequence[str]:
        return self._live.with_key((function, singleton))

    def live_children(self, run_id: str) -> Sequence[str]:
        return [child for child in self._children.get(run_id, ()) if not self._runs[child].status.final]

    def subscriptions(self) -> Sequence[Subscription]:
        return list(self._subscriptions.values())

    def log(self, event: Event, now: float) -> Received | None:
        if event.id in self._event_ids:
            return None
        received = self._event_ids[event.id or ""] = Received(self.cursor() + 1, event, now)
        self._events[received.seq] = received
        return received

    def schedule(self, event: Event) -> bool:
        return event.id not in self._event_ids and self._scheduled.add(event)

    def take_due(self, now: float) -> Sequence[Event]:
        return self._scheduled.take(now, AT_ONCE)
