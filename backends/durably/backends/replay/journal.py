"""The port to storage for the replay engine, and the rules that every storage shares.

A journal is a set of runs, the records of each, and a log of events. What the engine calls is one transaction: it
happens whole or not at all, and it has reached the disk (where there is one) when it returns. The engine hands what
changes something to `Journal.write`: a storage that waits for a disk may do that without holding up the event loop.

A storage of your own is a subclass of `Journal` that provides the abstract methods; docs/conformance.md shows one.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from durably.backends.replay.crashes import CrashLog
from durably.backends.replay.flow.admission import Admission
from durably.backends.replay.flow.batches import Batches, FullBatch
from durably.backends.replay.flow.rules import Plan, StartRules, plan_for
from durably.backends.replay.flow.store import FlowStore
from durably.backends.replay.pruning import PrunableStorage
from durably.core import Event, Function, SessionStore, Singleton
from durably.core.cause import session_key_of
from durably.core.errors import MissingKeyError, error_to_json
from durably.core.history import StepRecord
from durably.core.ids import derive_id
from durably.core.run_filter import RunFilter
from durably.core.run_view import RunStatus
from durably.core.standing import open_records
from durably.core.worker_view import WorkerView

__all__ = ["Changes", "Claim", "Journal", "NewRun", "Received", "RunRow", "Subscription", "nothing"]

logger = logging.getLogger("durably")

T = TypeVar("T")

NO_RULES = StartRules()

_ARRIVED = {"begins": RunStatus.RUNNING, "held": RunStatus.WAITING, "skipped": RunStatus.SKIPPED}


ALL = 2**62
"""More runs than there can be."""


def nothing(result: object) -> None:
    """What is done where nothing is to be done."""


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
        origin: Where it comes from, if it is a fork, as JSON.
        rules: Its other rules of flow control.
    """

    id: str
    function: str
    event: str
    parent: str | None = None
    singleton: Singleton | None = None
    tags: tuple[str, ...] = ()
    origin: str = ""
    rules: StartRules = NO_RULES

    def plan(self, now: float) -> Plan:
        """What the rules come to for this run. Raises MissingKeyError."""
        if self.singleton is None and self.rules == NO_RULES:
            return Plan(function=self.function, rank=now)
        event = Event.model_validate_json(self.event)
        return plan_for(self.function, event, self.rules, self.singleton, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as it is stored, without its records.

    Attributes:
        status: How it ended; ``WAITING`` while a rule of flow control holds it back; else ``RUNNING``: where a live
            run stands is read from its records.
        owner: The worker that holds it, or ``None``.
        fence: Grows with each change of owner; a write with an older one is refused.
        crashes: How many records the run had each time an owner had vanished.
        root: The run at the top of the calls that led to it, or ``None`` if it is at the top itself.
        session_key: The one in its input, or ``None``.
        tags: What it can be found by.
        ended_at: Seconds since 1970; 0 while it is live.
        crash_notes: What else is known of its crashes; read it as :attr:`crash_log`.
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
    crash_notes: str = ""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> RunRow:
        """Read a row from what ``json.loads`` gives for the fields of one."""
        status, crashes, tags = RunStatus(data["status"]), tuple(data["crashes"]), tuple(data["tags"])
        return cls(**{**data, "status": status, "crashes": crashes, "tags": tags})

    @property
    def crash_log(self) -> CrashLog:
        """Its crashes, and what they are put down to."""
        return CrashLog.read(self.crashes, self.crash_notes, self.created_at)

    @property
    def is_suspected(self) -> bool:
        """Whether it crashed twice in one place when it was last taken up."""
        return bool(self.crash_notes) and self.crash_log.due > 0

    def with_crashes(self, log: CrashLog) -> RunRow:
        """The same run with other crashes."""
        return replace(self, crashes=log.counts, crash_notes=log.notes)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A function that events start.

    Attributes:
        function: Its id.
        triggers: The names of the events.
        singleton: Its rule, or ``None``.
        rules: Its other rules of flow control.
    """

    function: str
    triggers: tuple[str, ...]
    singleton: Singleton | None
    rules: StartRules = NO_RULES

    @classmethod
    def of(cls, function: Function[Any, Any]) -> Subscription:
        return cls(function.id, function.triggers, function.singleton, StartRules.of(function))


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
        scheduled: When something that was put off is due, such as an event of a later time, or ``None``.
        claimable: Whether runs that were held back may begin now.
    """

    created: list[RunRow] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    scheduled: float | None = None
    claimable: bool = False


@dataclass(slots=True)
class Claim:
    """What a worker gets when it looks for runs.

    Attributes:
        runs: The runs that it has taken.
        due: When the next of those that crashed again and again may be taken, in seconds since 1970, or ``None``.
    """

    runs: list[RunRow] = field(default_factory=list)
    due: float | None = None

    def passes_over(self, row: RunRow, moment: float, suspects: int) -> bool:
        """Whether a run that nobody has is left alone for now: it pauses, or enough suspected ones are taken."""
        if not row.is_suspected:
            return False
        due = row.crash_log.due
        if due > moment:
            self.due = due if self.due is None else min(due, self.due)
        return due > moment or suspects <= 0


class Journal(ABC):
    """Storage for runs. See the module's docstring.

    The concrete methods are the rules; a storage does not override them. The abstract ones are what it provides: the
    first group is called by the engine, the last group by the rules, within a transaction.

    Attributes:
        flow: What the rules of flow control remember, or ``None`` for a storage that does not keep it: its backend
            refuses functions with such rules.
        sessions: The sessions of agents with ``sessions="backend"``, or ``None``: its backend refuses such agents.
    """

    flow: FlowStore | None = None
    sessions: SessionStore | None = None

    @cached_property
    def admission(self) -> Admission[Changes]:
        """Decides when runs begin."""
        return Admission(self, self.flow)

    def write(
        self,
        change: Callable[[], T],
        then: Callable[[T], None] = nothing,
        otherwise: Callable[[BaseException], None] | None = None,
        *,
        alone: bool = False,
    ) -> asyncio.Future[T]:
        """Make a change: whole or not at all, in the order of the calls, and on the disk when the future is done.

        Here it is made at once. A storage that overrides this may let several changes share a transaction, as long as
        each of them fails alone. It calls all of this in the event loop.

        Args:
            change: What to do to this journal. It may be called again where the disk refused it.
            then: Called with what the change returned once it is made, even if nobody waits for it any more.
            otherwise: Called with the error if it was not made.
            alone: Whether nobody else has anything to do, so that the event loop may stand still for a moment.

        Returns:
            A future of what the change returned, or raised.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            result = change()
        except BaseException as error:
            future.set_exception(error)
            if otherwise is not None:
                future.exception()  # it is told, whether anybody waits or not
                otherwise(error)
            return future
        then(result)
        future.set_result(result)
        return future

    async def start(self) -> None:
        """Open it for a worker. A storage that waits for a lock or a disk then does so away from the event loop."""
        self.open()

    async def stop(self) -> None:
        """Close it for a worker that has ended."""
        self.close()

    def abandon(self, error: BaseException) -> None:
        """Do not make the changes that wait, since their worker has died; whoever waits for them gets the error."""
        return  # here none wait

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
                self.leave(record.run_id, record.at, changes)
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
        try:
            verdict = self.admission.arrive(new.id, new.plan(now), now, changes)
        except MissingKeyError as error:
            return self.add_failed(new, error, now, changes)
        row = RunRow(
            id=new.id,
            function=new.function,
            status=_ARRIVED[verdict.outcome],
            parent=new.parent,
            singleton=verdict.singleton,
            owner=worker if verdict.outcome == "begins" else None,
            fence=1,
            crashes=(),
            created_at=now,
            ended_at=now if verdict.outcome == "skipped" else 0.0,
            **self._found_by(new),
        )
        self._add_row(row, new)
        if verdict.held is not None and self.flow is not None:
            self.flow.put(verdict.held)
        if row.owner is not None:
            changes.created.append(row)
        return row

    def _add_row(self, row: RunRow, new: NewRun) -> None:
        self.insert(row)
        first = StepRecord(
            new.id, 0, "", "run", "started", name=new.function, input=new.origin, output=new.event, at=row.created_at
        )
        self.append(first, row.fence)

    def _found_by(self, new: NewRun) -> dict[str, Any]:
        """The fields of a new run's row that it is found by, besides those that it comes with."""
        parent = None if new.parent is None else self.get(new.parent)
        return {
            "root": None if parent is None else parent.root or parent.id,
            "session_key": session_key_of(Event.model_validate_json(new.event)),
            "tags": new.tags,
        }

    def add_failed(self, new: NewRun, error: Exception, now: float, changes: Changes) -> RunRow:
        """Create a run that cannot begin within a transaction, so that everybody sees why."""
        logger.error("run %s of %r fails: %s", new.id, new.function, error)
        row = RunRow(
            id=new.id,
            function=new.function,
            status=RunStatus.RUNNING,
            parent=new.parent,
            singleton=None,
            owner=None,
            fence=1,
            crashes=(),
            created_at=now,
            **self._found_by(new),
        )
        self._add_row(row, new)
        data = error_to_json(error)
        self.append(StepRecord(new.id, 1, "", "run", "failed", name=new.function, error=data, at=now), row.fence)
        self.set_status(new.id, RunStatus.FAILED, now)
        changes.ended.append(new.id)
        return replace(row, status=RunStatus.FAILED, ended_at=now)

    # -- held back runs, as admission acts on them

    def place(self, run_id: str, singleton: str | None, *, begins: bool) -> None:
        """Give a run that was held back its singleton key, and let it begin or wait on, within a transaction."""
        row = self.get(run_id)
        assert row is not None
        if begins:
            self.set_status(run_id, RunStatus.RUNNING, 0.0)
            row = replace(row, status=RunStatus.RUNNING)
        self.take(replace(row, singleton=singleton, owner=None))

    def end_skipped(self, run_id: str, now: float, changes: Changes) -> None:
        """End a run that was held back, and never began, as skipped within a transaction."""
        self.set_status(run_id, RunStatus.SKIPPED, now)
        changes.ended.append(run_id)

    def leave(self, run_id: str, now: float, changes: Changes) -> None:
        """Let the next run of the same singleton key begin after the end of a run, within a transaction."""
        row = None if self.flow is None else self.get(run_id)
        if row is not None and row.singleton is not None:
            self.admission.left(row.function, row.singleton, now, changes)

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
        if self.flow is not None:
            self.flow.drop("held", run_id)
        self.leave(run_id, now, changes)

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
        """Deliver the scheduled events that are due, and let runs begin whose time has come."""
        changes = Changes()
        with self.transaction():
            for event in self.take_due(now):
                self.receive(event, worker, served, now, changes)
            self.admission.deliver(now, changes)
            self._flush(worker, served, now, changes)
        return changes

    def next_moment(self) -> float | None:
        """When `deliver` has something to do next, in seconds since 1970; ``None`` for never."""
        held = None if self.flow is None else self.flow.next_due(["held", "batch"])
        return min((each for each in (self.next_due(), held) if each is not None), default=None)

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
        self.trigger(event, worker, served, now, changes)

    def trigger(self, event: Event, worker: str | None, served: Iterable[str], now: float, changes: Changes) -> None:
        """Start the functions that an event triggers, within a transaction."""
        for subscription in self.subscribers(event.name):
            if subscription.rules.batch is None:
                new = self._triggered(subscription.function, event, subscription.singleton, subscription.rules)
                self.add_run(new, worker if new.function in served else None, now, changes)
            else:
                self._gather(subscription, event, worker, served, now, changes)

    def _triggered(self, function: str, event: Event, singleton: Singleton | None, rules: StartRules) -> NewRun:
        run_id = derive_id("run", event.id or "", function)
        return NewRun(id=run_id, function=function, event=event.model_dump_json(), singleton=singleton, rules=rules)

    def _gather(
        self,
        each: Subscription,
        event: Event,
        worker: str | None,
        served: Iterable[str],
        now: float,
        changes: Changes,
    ) -> None:
        """Add an event to the batch of a function, which starts a run when it is full."""
        assert each.rules.batch is not None
        self._flush(worker, served, now, changes)  # a batch whose time was up before this event begins without it
        try:
            full, due = self._batches.add(each.function, event, each.rules.batch, each.rules, each.singleton, now)
        except MissingKeyError as error:
            alone = event.model_copy(update={"data": [event.data]})
            self.add_failed(self._triggered(each.function, alone, None, NO_RULES), error, now, changes)
            return
        if full is None:
            changes.scheduled = min(due, changes.scheduled or due)
        else:
            self._start_batch(full, worker, served, now, changes)

    def _flush(self, worker: str | None, served: Iterable[str], now: float, changes: Changes) -> None:
        for full in self._batches.take_due(now) if self.flow is not None else []:
            self._start_batch(full, worker, served, now, changes)

    def _start_batch(
        self, full: FullBatch, worker: str | None, served: Iterable[str], now: float, changes: Changes
    ) -> None:
        new = self._triggered(full.function, full.event, full.singleton, full.rules)
        self.add_run(new, worker if new.function in served else None, now, changes)

    @property
    def _batches(self) -> Batches:
        assert self.flow is not None
        return Batches(self.flow)

    def subscription(self, function: str) -> Subscription | None:
        """What is remembered of a function, if any worker has registered it."""
        return next((each for each in self.subscriptions() if each.function == function), None)

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

    def runs_waiting_for(self, event: str) -> Sequence[str]:
        """The ids of the live runs that wait for an event of a name."""
        live = (row.id for row in self.rows(None, None, ALL) if not row.status.final)
        return [run_id for run_id in live if any(_waits_for(each, event) for each in self.open_records(run_id))]

    def first_record(self, run_id: str) -> StepRecord:
        """The first record of a run, which has what started it."""
        return self.records(run_id)[0]

    # -- looking after what is stored

    @property
    def pruning(self) -> PrunableStorage | None:
        """How it forgets finished runs; ``None``: it keeps them for ever, and its backend refuses a retention."""
        return None

    def introduce(self, view: WorkerView) -> bool:
        """Keep what others may see of a worker; ``False``: this storage has no list of its workers."""
        return False

    def workers(self, now: float) -> Sequence[WorkerView] | None:
        """The workers whose leases are not over, as they introduced themselves; ``None``: it has no list of them."""
        return None

    # -- ownership

    def give_back(self, worker: str, run_ids: Iterable[str]) -> None:
        """Let others have some of the runs of a worker at once; those that it has no more are left alone."""
        with self.transaction():
            for run_id in run_ids:
                row = self.get(run_id)
                if row is not None and row.owner == worker and not row.status.final:
                    self.take(replace(row, owner=None))

    def is_alive(self, worker: str, now: float) -> bool:
        """Whether a worker counts as alive."""
        return worker in self.living(now)

    def claim(
        self,
        worker: str,
        served: Sequence[str],
        now: float,
        unfit: Container[str] = (),
        *,
        moment: float | None = None,
        suspects: int = 1,
        limit: int | None = None,
    ) -> Claim:
        """Take the live runs of served functions that have no owner, or whose owner's lease is over; oldest first.

        Args:
            worker: Who takes them.
            served: The ids of its functions.
            now: The time that leases are judged by, in seconds since 1970.
            unfit: Runs that its code does not fit: it leaves them to others while they are stuck.
            moment: The time that the pauses between two recoveries of a run are judged by; left out, the same.
            suspects: How many runs it takes at most that crashed twice in one place.
            limit: How many runs it takes at most.
        """
        moment = now if moment is None else moment
        claim = Claim()
        with self.transaction():
            for row in self._free(worker, served, now, unfit):
                if limit is not None and len(claim.runs) >= limit:
                    break
                vanished = row.owner is not None
                if vanished:
                    row = row.with_crashes(row.crash_log.crashed(self.count(row.id), moment))
                if claim.passes_over(row, moment, suspects):
                    if vanished:  # nobody's for now, and whoever had it writes nothing more
                        self.take(replace(row, owner=None, fence=row.fence + 1))
                    continue
                suspects -= row.is_suspected
                status = RunStatus.RUNNING if row.status is RunStatus.STUCK else row.status
                claim.runs.append(replace(row, status=status, owner=worker, fence=row.fence + 1))
                self.take(claim.runs[-1])
        return claim

    def leaves(
        self, worker: str, served: Sequence[str], now: float, unfit: Container[str], *, moment: float, suspects: int
    ) -> Claim | None:
        """A claim that takes nothing, if :meth:`claim` would take nothing; without writing."""
        claim = Claim()
        found = self._free(worker, served, now, unfit)
        return claim if all(row.owner is None and claim.passes_over(row, moment, suspects) for row in found) else None

    def let_go(self, worker: str, cut_off: Iterable[str]) -> None:
        """Give back all runs of a worker that ends in good order.

        Args:
            worker: The worker.
            cut_off: The runs of which it cut off a body. The body may have had its effect: the next execution bears
                another number. A crash it was not.
        """
        with self.transaction():
            for run_id in cut_off:
                row = self.get(run_id)
                if row is not None and row.owner == worker and not row.status.final:
                    self.take(row.with_crashes(row.crash_log.stopped(self.count(run_id))))
        self.release(worker)

    def note_crashes(self, row: RunRow, log: CrashLog) -> None:
        """Note something of the crashes of a run, unless it has another owner by now."""
        with self.transaction():
            known = self.get(row.id)
            if known is not None and known.fence == row.fence and not known.status.final:
                self.take(known.with_crashes(log))

    def _free(self, worker: str, served: Sequence[str], now: float, unfit: Container[str]) -> list[RunRow]:
        rows = self.claimable(worker, served, now)
        return [row for row in rows if row.status is not RunStatus.STUCK or row.id not in unfit]

    @abstractmethod
    def open(self) -> None:
        """Make ready for use."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files. What was committed stays."""

    @abstractmethod
    def register(self, subscriptions: Sequence[Subscription]) -> None:
        """Remember which events start these functions, also while no worker is up.

        In a transaction of its own unless one is open.
        """

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

    def records_since(self, run_id: str, seq: int) -> list[StepRecord]:
        """The records of a run from a number on; raises what :meth:`records` raises."""
        return self.records(run_id)[seq:]

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
    def set_status(self, run_id: str, status: RunStatus, ended_at: float) -> None:
        """Give a run another status, and when it ended, or 0; and take its owner away."""

    @abstractmethod
    def take(self, row: RunRow) -> None:
        """Store the status, the owner, the fence, the crashes and their notes, and the singleton key of a run."""

    @abstractmethod
    def claimable(self, worker: str, served: Sequence[str], now: float) -> Sequence[RunRow]:
        """The running and the stuck runs of these functions without an owner, or whose lease is over; oldest first."""

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


def _waits_for(record: StepRecord, event: str) -> bool:
    return record.kind == "wait_for_event" and record.status == "started" and record.name == event
