"""How workers take runs, give them back, and take over those of a worker that died."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace

from durably.backends.replay.crashes import CrashLog
from durably.backends.replay.journal_types import Claim, RunRow
from durably.backends.replay.storage import Storage
from durably.core.run_view import RunStatus

__all__ = ["Ownership"]


class Ownership(Storage):
    """Says which worker owns which run."""

    def give_back(self, worker: str, run_ids: Iterable[str]) -> None:
        """Let others have some of the runs of a worker at once; those that it has no more are left alone."""
        with self.transaction():
            for run_id in run_ids:
                row = self.get(run_id)
                if row is not None and row.owner == worker and not row.status.final:
                    self.take(replace(row, owner=None))

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
                row, vanished = self._still_resting(row), row.owner is not None
                if vanished and not row.rested:
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
        for row in found:
            if row.owner is not None or not claim.passes_over(self._still_resting(row), moment, suspects):
                return None
        return claim

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
            known = self._still_own(row)
            if known is not None:
                self.take(known.with_crashes(log))

    def note_rest(self, row: RunRow, rested: int) -> bool:
        """Note that a run has left memory with so many records, or with 0 that it is driven again.

        Returns:
            Whether the run is still the worker's that has it under this fence.
        """
        with self.transaction():
            known = self._still_own(row)
            if known is not None:
                self.take(replace(known, rested=rested))
        return known is not None

    def _still_own(self, row: RunRow) -> RunRow | None:
        known = self.get(row.id)
        return known if known is not None and known.fence == row.fence and not known.status.final else None

    def _still_resting(self, row: RunRow) -> RunRow:
        """A run with what is true of its rest now: while it rests, whatever crashed was something else."""
        if not row.rested:
            return row
        if row.rested != self.count(row.id):
            return replace(row, rested=0)
        return row.with_crashes(replace(row.crash_log, due=0.0)) if row.is_suspected else row

    def _free(self, worker: str, served: Sequence[str], now: float, unfit: Container[str]) -> Iterator[RunRow]:
        lives = False
        for row in self.claimable(worker, served, now):
            lives = lives or worker in self.living(now)
            if not lives:
                return  # others would take them from it at once; once it has renewed its lease, it looks again
            if row.status is not RunStatus.STUCK or row.id not in unfit:
                yield row
