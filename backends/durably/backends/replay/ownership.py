"""How workers take runs, give them back, and take over those of a worker that died."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
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
        if rows and worker not in self.living(now):
            return []  # others would take them from it at once; once it has renewed its lease, it looks again
        return [row for row in rows if row.status is not RunStatus.STUCK or row.id not in unfit]
