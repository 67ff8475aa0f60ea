"""The port to storage: what the replay engine, and the rules that every storage shares, need of one.

Does not own: the rules (``run_rules.py``, ``event_rules.py``, ``ownership.py``), which come with `Journal`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from durably.backends.replay.flow.store import FlowStore
from durably.backends.replay.journal_types import Received, RunRow, Subscription, WaitingRun
from durably.backends.replay.pruning import PrunableStorage
from durably.core import Event, SessionStore
from durably.core.history import StepRecord
from durably.core.run_filter import RunFilter
from durably.core.run_view import RunStatus
from durably.core.standing import open_records
from durably.core.worker_view import WorkerView

__all__ = ["Storage"]

ALL = 2**62
"""More runs than there can be."""


class Storage(ABC):
    """What a storage provides.

    The first group of abstract methods is called by the engine, the last group by the rules, within a transaction. The
    other methods say in terms of these what a storage may know better or sooner: it may override them.

    Attributes:
        flow: What the rules of flow control remember, or ``None`` for a storage that does not keep it: its backend
            refuses functions with such rules.
        sessions: The sessions of agents with ``sessions="backend"``, or ``None``: its backend refuses such agents.
    """

    flow: FlowStore | None = None
    sessions: SessionStore | None = None

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

    # -- called by the rules, within a transaction

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
        """Store the status, the owner, the fence, the crashes and their notes, the singleton key and `rested`."""

    @abstractmethod
    def claimable(self, worker: str, served: Sequence[str], now: float) -> Iterable[RunRow]:
        """The running and the stuck runs of these functions without an owner, or whose lease is over; oldest first.

        Whoever asks takes some of them, and may not look at the others.
        """

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
        """Remove and return the scheduled events that are due, in the order of their times.

        Of many it may leave the later ones for the next call.
        """

    # -- finding

    def scan(self, where: RunFilter, place: int | None, *, back: bool) -> Iterator[tuple[int, RunRow]]:
        """Runs with their places, which grow from run to run: all that fit, and maybe others, which the caller drops.

        Between two of them others may change what is stored.

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

    def count_page(
        self, where: RunFilter, place: int, living: Collection[str]
    ) -> tuple[dict[RunStatus, int], int | None] | None:
        """How many of the next runs fit, by where they stand; ``None`` if only :meth:`scan` can tell.

        Args:
            where: Which runs.
            place: Behind which place the next ones begin; 0 at first.
            living: The workers that are alive.

        Returns:
            The numbers, and up to which place they were counted; ``None`` at the end.
        """
        return None

    def open_records(self, run_id: str) -> list[StepRecord]:
        """Those of a run's records that hold it up. See :func:`durably.core.standing.open_records`."""
        return open_records(self.records(run_id))

    def event_waits(self, event: str) -> Iterator[Sequence[WaitingRun]]:
        """The live runs that wait for an event of a name, in pages. Between two of them others may change something."""
        for run_id in [row.id for row in self.rows(None, None, ALL) if not row.status.final]:
            row = self.get(run_id)
            if row is None or row.status.final:
                continue
            waits = [each.at for each in self.open_records(run_id) if _waits_for(each, event)]
            if waits:
                is_fork = bool(self.first_record(run_id).input)
                yield [WaitingRun(run_id, row.created_at, max(waits), is_fork)]

    def lost(self, worker: str, run_ids: Sequence[str]) -> list[str]:
        """Those of some runs that a worker has no more: they ended, or another has them."""
        rows = {run_id: self.get(run_id) for run_id in run_ids}
        return [run_id for run_id, row in rows.items() if row is None or row.owner != worker or row.status.final]

    def ended(self, run_ids: Sequence[str]) -> list[str]:
        """Those of some runs that have ended, or are not there any more."""
        rows = {run_id: self.get(run_id) for run_id in run_ids}
        return [run_id for run_id, row in rows.items() if row is None or row.status.final]

    def records_of(self, run_id: str, step_ids: tuple[str, ...]) -> list[StepRecord]:
        """The first and the last record of a run, and those of the steps whose ids begin with one of these texts.

        Raises what :meth:`records` raises, of the records that it reads.
        """
        first, *others = self.records(run_id)
        return [first, *(each for each in others if each is others[-1] or each.step_id.startswith(step_ids))]

    def log_page(self, cursor: int, names: Collection[str], limit: int) -> tuple[list[Received], int]:
        """The events of some names after a place in the log, in order, and up to which place that was read.

        Args:
            cursor: The place.
            names: Their names.
            limit: How many events are read at most; those of other names count too. A storage may read more.
        """
        end = self.cursor()
        found = [each for name in names for each in self.events_since(cursor, name)]
        return sorted(found, key=lambda received: received.seq), end

    def received(self, event: Event) -> Event | None:
        """The event in the log that has the name and the id of this one, or ``None``."""
        same_name = (each.event for each in self.events_since(0, event.name))
        return next((each for each in same_name if each.id == event.id), None)

    def first_record(self, run_id: str) -> StepRecord:
        """The first record of a run, which has what started it."""
        return self.records(run_id)[0]

    def is_alive(self, worker: str, now: float) -> bool:
        """Whether a worker counts as alive."""
        return worker in self.living(now)

    def records_since(self, run_id: str, seq: int) -> list[StepRecord]:
        """The records of a run from a number on; raises what :meth:`records` raises."""
        return self.records(run_id)[seq:]

    def subscription(self, function: str) -> Subscription | None:
        """What is remembered of a function, if any worker has registered it."""
        return next((each for each in self.subscriptions() if each.function == function), None)

    def subscribers(self, event: str) -> Sequence[Subscription]:
        """The functions that an event of this name starts."""
        return [each for each in self.subscriptions() if event in each.triggers]

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


def _waits_for(record: StepRecord, event: str) -> bool:
    return record.kind == "wait_for_event" and record.status == "started" and record.name == event
