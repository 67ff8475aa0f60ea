"""The port to storage for the replay engine, and the rules that every storage shares.

A journal is a set of runs, the records of each, and a log of events. What the engine calls is one transaction: it
happens whole or not at all, and it has reached the disk (where there is one) when it returns.

A storage of your own is a subclass of `Journal` that provides the abstract methods; docs/conformance.md shows one.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from durably.core import Event, Function, Singleton
from durably.core.backend import RunStatus
from durably.core.history import StepRecord
from durably.core.ids import derive_id
from durably.core.run_events import session_key_of
from durably.core.run_filter import RunFilter
from durably.core.standing import open_records

__all__ = ["Changes", "Journal", "NewRun", "Received", "RunRow", "Subscription"]


ALL = 2**62
"""More runs than there can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be created.

    Attributes:
        id: Its id; a run with the same id is not created again.
        function: The id of its function.
        event: What starts it, as JSON.
        parent: The run that waits for it, or ``None``.
        singleton: The rule of its function, or ``None``.
        tags: What it can be found by.
    """

    id: str
    function: str
    event: str
    parent: str | None = None
    singleton: Singleton | None = None
    tags: tuple[str, ...] = ()

    def singleton_key(self, event: Event) -> str | None:
        """The value of the singleton's key for this run, as JSON; ``event`` is what starts it."""
        if self.singleton is None:
            return None
        return json.dumps(event.at(self.singleton.key), sort_keys=True) if self.singleton.key else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as it is stored, without its records.

    Attributes:
        status: How it ended, or ``RUNNING``: where a live run stands is read from its records.
        owner: The worker that holds it, or ``None``.
        fence: Grows with each change of owner; a write with an older one is refused.
        crashes: How many records the run had each time an owner had vanished.
        root: The run at the top of the calls that led to it, or ``None`` if it is at the top itself.
        session_key: The one in its input, or ``None``.
        tags: What it can be found by.
        ended_at: Seconds since 1970; 0 while it is live.
    """

    id: str
    function: str
    status: RunStatus
    parent: str | None
    singleton: str | None
    owner: str | None
    fence: int
    crashes: tuple[int, ...]
    created_at: float
    root: str | None = None
    session_key: str | None = None
    tags: tuple[str, ...] = ()
    ended_at: float = 0.0

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> RunRow:
        """Read a row from what ``json.loads`` gives for the fields of one."""
        status, crashes, tags = RunStatus(data["status"]), tuple(data["crashes"]), tuple(data["tags"])
        return cls(**{**data, "status": status, "crashes": crashes, "tags": tags})


@dataclass(frozen=True, slots=True)
class Subscription:
    """A function that events start.

    Attributes:
        function: Its id.
        triggers: The names of the events.
        singleton: Its rule, or ``None``.
    """

    function: str
    triggers: tuple[str, ...]
    singleton: Singleton | None

    @classmethod
    def of(cls, function: Function[Any, Any]) -> Subscription:
        return cls(function.id, function.triggers, function.singleton)


@dataclass(frozen=True, slots=True)
class Received:
    """An event that was delivered: its place in the log, and when."""

    seq: int
    event: Event
    at: float


@dataclass(slots=True)
class Changes:
    """What a transaction did besides its own record, for the engine to act on.

    Attributes:
        created: New runs that belong to this worker.
        cancelled: Ids of runs that were cancelled.
        ended: Ids of runs that completed or failed.
        received: Events that were delivered.
        scheduled: When the next scheduled event among those sent is due, or ``None``.
    """

    created: list[RunRow] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    scheduled: float | None = None


class Journal(ABC):
    """Storage for runs. See the module's docstring.

    The concrete methods are the rules; a storage does not override them. The abstract ones are what it provides: the
    first group is called by the engine, the last group by the rules, within a transaction.
    """

    # -- runs

    def create(self, new: NewRun, *, worker: str | None, now: float) -> tuple[RunRow, Changes]:
        """Create a run for a worker, or for any worker. A known id gives the run that has it."""
        changes = Changes()
        with self.transaction():
            row = self.add_run(new, worker, now, changes)
        return row, changes

    def commit(
        self,
        record: StepRecord,
        fence: int,
        *,
        worker: str | None = None,
        status: RunStatus | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        served: Iterable[str] = (),
        cancel: str | None = None,
    ) -> Changes:
        """Append a record to a run that this worker owns, and in the same transaction what the record is about.

        Args:
            record: The record.
            fence: The token the run was claimed with.
            worker: This worker, which takes the new runs of functions it serves.
            status: The run's new status, with its last record.
            runs: Runs to create.
            events: Events to send.
            served: The ids of functions this worker serves.
            cancel: A run to cancel.

        Raises:
            StaleRunError: If the run has another owner or has ended. Nothing was written.
        """
        changes = Changes()
        with self.transaction():
            self.append(record, fence)
            for new in runs:
                self.add_run(new, worker if new.function in served else None, record.at, changes)
            self.receive_all(events, worker, served, record.at, changes)
            if cancel is not None:
                self.end_cancelled(cancel, record.at, changes)
            if status is not None:
                self.set_status(record.run_id, status, record.at)
                changes.ended.append(record.run_id)
                self.cancel_children(record.run_id, record.at, changes)
        return changes

    def cancel(self, run_id: str, now: float) -> Changes:
        """End a live run, and the live runs it waits for, as cancelled; its owner's next write is refused."""
        changes = Changes()
        with self.transaction():
            self.end_cancelled(run_id, now, changes)
        return changes

    def add_run(self, new: NewRun, worker: str | None, now: float, changes: Changes) -> RunRow:
        """Create a run within a transaction, under the singleton rule of its function."""
        known = self.get(new.id)
        if known is not None:
            return known
        event = Event.model_validate_json(new.event)
        parent = None if new.parent is None else self.get(new.parent)
        key = new.singleton_key(event)
        skipped = False
        if new.singleton is not None and key is not None:
            for other in self.live_singletons(new.function, key):
                if new.singleton.mode == "skip":
                    skipped = True
                else:
                    self.end_cancelled(other, now, changes)
        row = RunRow(
            id=new.id,
            function=new.function,
            status=RunStatus.SKIPPED if skipped else RunStatus.RUNNING,
            parent=new.parent,
            singleton=key,
            owner=None if skipped else worker,
            fence=1,
            crashes=(),
            created_at=now,
            root=None if parent is None else parent.root or parent.id,
            session_key=session_key_of(event),
            tags=new.tags,
            ended_at=now if skipped else 0.0,
        )
        self.insert(row)
        first = StepRecord(new.id, 0, "", "run", "started", name=new.function, output=new.event, at=now)
        self.append(first, row.fence)
        if row.owner is not None:
            changes.created.append(row)
        return row

    def end_cancelled(self, run_id: str, now: float, changes: Changes) -> None:
        """End a live run as cancelled within a transaction, and the live runs it waits for."""
        row = self.get(run_id)
        if row is None or row.status.final:
            return
        seq = self.count(run_id)
        self.append(StepRecord(run_id, seq, "", "run", "cancelled", name=row.function, at=now), row.fence)
        self.set_status(run_id, RunStatus.CANCELLED, now)
        changes.cancelled.append(run_id)
        self.cancel_children(run_id, now, changes)

    def cancel_children(self, run_id: str, now: float, changes: Changes) -> None:
        """End the live runs that a run waits for, within a transaction."""
        for child in self.live_children(run_id):
            self.end_cancelled(child, now, changes)

    # -- events

    def publish(self, events: Sequence[Event], *, worker: str | None, served: Iterable[str], now: float) -> Changes:
        """Receive events from outside. An id that was seen before is dropped."""
        changes = Changes()
        with self.transaction():
            self.receive_all(events, worker, served, now, changes)
        return changes

    def deliver(self, *, worker: str | None, served: Iterable[str], now: float) -> Changes:
        """Deliver the scheduled events that are due."""
        changes = Changes()
        with self.transaction():
            for event in self.take_due(now):
                self.receive(event, worker, served, now, changes)
        return changes

    def receive_all(
        self, events: Sequence[Event], worker: str | None, served: Iterable[str], now: float, changes: Changes
    ) -> None:
        """Receive events within a transaction; those of a later time are kept until then."""
        for event in events:
            if event.ts is not None and event.ts > now:
                if self.schedule(event):
                    changes.scheduled = min(event.ts, changes.scheduled or event.ts)
            else:
                self.receive(event, worker, served, now, changes)

    def receive(self, event: Event, worker: str | None, served: Iterable[str], now: float, changes: Changes) -> None:
        """Log an event within a transaction, and start the functions that it triggers."""
        received = self.log(event, now)
        if received is None:
            return
        changes.received.append(received)
        for subscription in self.subscribers(event.name):
            new = NewRun(
                id=derive_id("run", event.id or "", subscription.function),
                function=subscription.function,
                event=event.model_dump_json(),
                singleton=subscription.singleton,
            )
            self.add_run(new, worker if new.function in served else None, now, changes)

    def subscribers(self, event: str) -> Sequence[Subscription]:
        """The functions that an event of this name starts."""
        return [each for each in self.subscriptions() if event in each.triggers]

    # -- finding

    def scan(self, where: RunFilter, place: int | None, *, back: bool) -> Iterator[tuple[int, RunRow]]:
        """Runs with their places, which grow from run to run: all that fit, and maybe others, which the caller drops.

        Args:
            where: Which runs.
            place: Only those behind this place, or ``None`` for all.
            back: From older runs to newer ones; else from newer to older.
        """
        rows = self.rows(None, None, ALL)
        numbered = [(len(rows) - index, row) for index, row in enumerate(rows)]
        for number, row in reversed(numbered) if back else numbered:
            if place is None or (number > place if back else number < place):
                yield number, row

    def count_ended(self, where: RunFilter) -> dict[RunStatus, int] | None:
        """How many runs that have ended fit, by their status; ``None`` if only :meth:`scan` can tell."""
        return None

    def open_records(self, run_id: str) -> list[StepRecord]:
        """Those of a run's records that hold it up. See :func:`durably.core.standing.open_records`."""
        return open_records(self.records(run_id))

    # -- ownership

    def claim(self, worker: str, served: Sequence[str], now: float) -> list[RunRow]:
        """Take the live runs of served functions that have no owner, or whose owner's lease is over."""
        claimed: list[RunRow] = []
        if not self.claimable(worker, served, now):
            return claimed
        with self.transaction():
            for row in self.claimable(worker, served, now):
                crashes = row.crashes if row.owner is None else (*row.crashes, self.count(row.id))
                claimed.append(replace(row, owner=worker, fence=row.fence + 1, crashes=crashes))
                self.take(claimed[-1])
        return claimed

    @abstractmethod
    def open(self) -> None:
        """Make ready for use."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files. What was committed stays."""

    @abstractmethod
    def register(self, subscriptions: Sequence[Subscription]) -> None:
        """Remember which events start these functions, also while no worker is up."""

    @abstractmethod
    def lease(self, worker: str, until: float) -> None:
        """Say that a worker lives until a moment (seconds since 1970, wall clock), unless it says so again."""

    @abstractmethod
    def release(self, worker: str) -> None:
        """Give back all runs of a worker, which ends in good order."""

    @abstractmethod
    def bury(self, worker: str) -> None:
        """Note that a worker is dead, before its lease is over."""

    @abstractmethod
    def living(self, now: float) -> Collection[str]:
        """The workers that count as alive at a moment: whose leases are not over."""

    @abstractmethod
    def changed(self) -> bool:
        """Whether another process wrote something since this was last asked."""

    @abstractmethod
    def get(self, run_id: str) -> RunRow | None:
        """A run as it is stored, or ``None``."""

    @abstractmethod
    def records(self, run_id: str) -> list[StepRecord]:
        """All records of a run, in order.

        Raises:
            JournalCorruptError: If one is not what was written.
        """

    @abstractmethod
    def count(self, run_id: str) -> int:
        """How many records a run has, without reading them."""

    @abstractmethod
    def last_record(self, run_id: str) -> StepRecord:
        """The newest record of a run."""

    @abstractmethod
    def rows(self, function: str | None, status: RunStatus | None, limit: int) -> list[RunRow]:
        """The newest runs, newest first; ``None`` for any function, or any status."""

    @abstractmethod
    def cursor(self) -> int:
        """The place of the newest event in the log, 0 for none."""

    @abstractmethod
    def events_since(self, cursor: int, name: str) -> list[Received]:
        """The events of a name after a place in the log, in order."""

    @abstractmethod
    def next_due(self) -> float | None:
        """When the next scheduled event is due, in seconds since 1970; ``None`` for none."""

    @abstractmethod
    def append(self, record: StepRecord, fence: int) -> None:
        """Append a record to a run, in a transaction of its own unless one is open.

        Raises:
            StaleRunError: Unless the run is live, or has no record yet, and has this fence and this many records.
        """

    # -- called by the rules above, within a transaction

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """A block that is committed as a whole at its end, or not at all if it raises."""

    @abstractmethod
    def insert(self, row: RunRow) -> None:
        """Add a run, without records."""

    @abstractmethod
    def set_status(self, run_id: str, status: RunStatus, at: float) -> None:
        """End a run at a moment, and take its owner away."""

    @abstractmethod
    def take(self, row: RunRow) -> None:
        """Store the owner, the fence and the crashes of a run that a worker has claimed."""

    @abstractmethod
    def claimable(self, worker: str, served: Sequence[str], now: float) -> Sequence[RunRow]:
        """The live runs of these functions that have no owner, or one whose lease is over; oldest first."""

    @abstractmethod
    def live_singletons(self, function: str, singleton: str) -> Sequence[str]:
        """The ids of the live runs of a function that have this singleton key; oldest first."""

    @abstractmethod
    def live_children(self, run_id: str) -> Sequence[str]:
        """The ids of the live runs that a run waits for."""

    @abstractmethod
    def subscriptions(self) -> Sequence[Subscription]:
        """The functions that any worker has registered."""

    @abstractmethod
    def log(self, event: Event, now: float) -> Received | None:
        """Append to the event log; ``None`` for an id that was seen before."""

    @abstractmethod
    def schedule(self, event: Event) -> bool:
        """Keep an event until its ``ts``; ``False`` for an id that was seen before."""

    @abstractmethod
    def take_due(self, now: float) -> Sequence[Event]:
        """Remove and return the scheduled events that are due, in the order of their times."""
