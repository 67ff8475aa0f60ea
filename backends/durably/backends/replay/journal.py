"""The port to storage for the replay engine, and the rules that every storage shares.

A journal is a set of runs, the records of each, and a log of events. Each public method of `Journal` is one
transaction: it happens whole or not at all, and it has reached the disk (where there is one) when it returns.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from durably.core import Event, Function, Singleton
from durably.core.backend import RunStatus
from durably.core.history import StepRecord
from durably.core.ids import derive_id

__all__ = ["Changes", "Journal", "NewRun", "Received", "RunRow", "Subscription"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be created.

    Attributes:
        id: Its id; a run with the same id is not created again.
        function: The id of its function.
        event: What starts it, as JSON.
        parent: The run that waits for it, or ``None``.
        singleton: The rule of its function, or ``None``.
    """

    id: str
    function: str
    event: str
    parent: str | None = None
    singleton: Singleton | None = None

    @property
    def singleton_key(self) -> str | None:
        """The value of the singleton's key for this run, as JSON."""
        if self.singleton is None:
            return None
        event = Event.model_validate_json(self.event)
        return json.dumps(event.at(self.singleton.key), sort_keys=True) if self.singleton.key else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as it is stored, without its records.

    Attributes:
        owner: The worker that holds it, or ``None``.
        fence: Grows with each change of owner; a write with an older one is refused.
        crashes: How many records the run had each time an owner had vanished.
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
        received: Events that were delivered.
        scheduled: When the next scheduled event among those sent is due, or ``None``.
    """

    created: list[RunRow] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    scheduled: float | None = None


class Journal(ABC):
    """Storage for runs. See the module's docstring; the methods with an underscore are what a storage implements."""

    # -- runs

    def create(self, new: NewRun, *, worker: str | None, now: float) -> tuple[RunRow, Changes]:
        """Create a run for a worker, or for any worker. A known id gives the run that has it."""
        changes = Changes()
        with self._transaction():
            row = self._create(new, worker, now, changes)
        return row, changes

    def append(self, record: StepRecord, fence: int) -> None:
        """Append a record that changes nothing else: what :meth:`commit` does for most steps."""
        self._append(record, fence)

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
        with self._transaction():
            self._append(record, fence)
            for new in runs:
                self._create(new, worker if new.function in served else None, record.at, changes)
            self._publish(events, worker, served, record.at, changes)
            if cancel is not None:
                self._cancel(cancel, record.at, changes)
            if status is not None:
                self._set_status(record.run_id, status)
                self._cancel_children(record.run_id, record.at, changes)
        return changes

    def cancel(self, run_id: str, now: float) -> Changes:
        """End a live run, and the live runs it waits for, as cancelled; its owner's next write is refused."""
        changes = Changes()
        with self._transaction():
            self._cancel(run_id, now, changes)
        return changes

    def _create(self, new: NewRun, worker: str | None, now: float, changes: Changes) -> RunRow:
        known = self.get(new.id)
        if known is not None:
            return known
        key = new.singleton_key
        skipped = False
        if new.singleton is not None and key is not None:
            for other in self._live(new.function, key):
                if new.singleton.mode == "skip":
                    skipped = True
                else:
                    self._cancel(other, now, changes)
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
        )
        self._insert(row)
        first = StepRecord(new.id, 0, "", "run", "started", name=new.function, output=new.event, at=now)
        self._append(first, row.fence)
        if row.owner is not None:
            changes.created.append(row)
        return row

    def _cancel(self, run_id: str, now: float, changes: Changes) -> None:
        row = self.get(run_id)
        if row is None or row.status.final:
            return
        seq = self.count(run_id)
        self._append(StepRecord(run_id, seq, "", "run", "cancelled", name=row.function, at=now), row.fence)
        self._set_status(run_id, RunStatus.CANCELLED)
        changes.cancelled.append(run_id)
        self._cancel_children(run_id, now, changes)

    def _cancel_children(self, run_id: str, now: float, changes: Changes) -> None:
        for child in self._live_children(run_id):
            self._cancel(child, now, changes)

    # -- events

    def publish(self, events: Sequence[Event], *, worker: str | None, served: Iterable[str], now: float) -> Changes:
        """Receive events from outside. An id that was seen before is dropped."""
        changes = Changes()
        with self._transaction():
            self._publish(events, worker, served, now, changes)
        return changes

    def deliver(self, *, worker: str | None, served: Iterable[str], now: float) -> Changes:
        """Deliver the scheduled events that are due."""
        changes = Changes()
        with self._transaction():
            for event in self._take_due(now):
                self._receive(event, worker, served, now, changes)
        return changes

    def _publish(
        self, events: Sequence[Event], worker: str | None, served: Iterable[str], now: float, changes: Changes
    ) -> None:
        for event in events:
            if event.ts is not None and event.ts > now:
                if self._schedule(event):
                    changes.scheduled = min(event.ts, changes.scheduled or event.ts)
            else:
                self._receive(event, worker, served, now, changes)

    def _receive(self, event: Event, worker: str | None, served: Iterable[str], now: float, changes: Changes) -> None:
        received = self._log(event, now)
        if received is None:
            return
        changes.received.append(received)
        for subscription in self._subscribers(event.name):
            new = NewRun(
                id=derive_id("run", event.id or "", subscription.function),
                function=subscription.function,
                event=event.model_dump_json(),
                singleton=subscription.singleton,
            )
            self._create(new, worker if new.function in served else None, now, changes)

    # -- ownership

    def claim(self, worker: str, served: Sequence[str], now: float) -> list[RunRow]:
        """Take the live runs of served functions that have no owner, or whose owner's lease is over."""
        claimed: list[RunRow] = []
        if not self._claimable(worker, served, now):
            return claimed
        with self._transaction():
            for row in self._claimable(worker, served, now):
                crashes = row.crashes if row.owner is None else (*row.crashes, self.count(row.id))
                claimed.append(replace(row, owner=worker, fence=row.fence + 1, crashes=crashes))
                self._take(claimed[-1])
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
    def changed(self) -> bool:
        """Whether another process wrote something since this was last asked."""

    @abstractmethod
    def get(self, run_id: str) -> RunRow | None: ...

    @abstractmethod
    def records(self, run_id: str) -> list[StepRecord]: ...

    @abstractmethod
    def count(self, run_id: str) -> int:
        """How many records a run has, without reading them."""

    @abstractmethod
    def last_record(self, run_id: str) -> StepRecord: ...

    @abstractmethod
    def rows(self, function: str | None, status: RunStatus | None, limit: int) -> list[RunRow]:
        """The newest runs, newest first."""

    @abstractmethod
    def cursor(self) -> int:
        """The place of the newest event in the log."""

    @abstractmethod
    def events_since(self, cursor: int, name: str) -> list[Received]:
        """The events of a name after a place in the log, in order."""

    @abstractmethod
    def next_due(self) -> float | None:
        """When the next scheduled event is due."""

    # -- what a storage implements; called within a transaction

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def _insert(self, row: RunRow) -> None: ...

    @abstractmethod
    def _append(self, record: StepRecord, fence: int) -> None:
        """Raises StaleRunError unless the run is live (or new) and has this fence and this many records."""

    @abstractmethod
    def _set_status(self, run_id: str, status: RunStatus) -> None: ...

    @abstractmethod
    def _take(self, row: RunRow) -> None: ...

    @abstractmethod
    def _claimable(self, worker: str, served: Sequence[str], now: float) -> Sequence[RunRow]: ...

    @abstractmethod
    def _live(self, function: str, singleton: str) -> Sequence[str]: ...

    @abstractmethod
    def _live_children(self, run_id: str) -> Sequence[str]: ...

    @abstractmethod
    def _subscribers(self, event: str) -> Sequence[Subscription]: ...

    @abstractmethod
    def _log(self, event: Event, now: float) -> Received | None:
        """Append to the event log; ``None`` for an id that was seen before."""

    @abstractmethod
    def _schedule(self, event: Event) -> bool:
        """Keep an event until its ``ts``; ``False`` for an id that was seen before."""

    @abstractmethod
    def _take_due(self, now: float) -> Sequence[Event]:
        """Remove and return the scheduled events that are due, in the order of their times."""
