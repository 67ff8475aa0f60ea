"""What is done with runs that did not go well: taken up again, forked, or left until their code fits."""

from __future__ import annotations

from dataclasses import replace

from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Changes, NewRun, RunRow
from durably.core import DurablyError
from durably.core.errors import RunNotFailedError, RunNotFoundError, StaleRunError
from durably.core.history import StepRecord
from durably.core.repair import Origin, cut_after, prefix_records
from durably.core.replay import Recorded
from durably.core.run_events import child_id
from durably.core.run_view import RunStatus

__all__ = ["fork", "resume", "stick"]


def resume(journal: Journal, run_id: str, now: float) -> None:
    """Take up a failed run again, with the failed children that it waited for; any worker may claim them.

    Raises:
        RunNotFoundError: If there is none of this id.
        RunNotFailedError: If it has not failed.
        DurablyError: If another run of the same singleton key is live.
    """
    with journal.transaction():
        row = journal.get(run_id)
        if row is None:
            raise RunNotFoundError(run_id)
        if row.status is not RunStatus.FAILED:
            raise RunNotFailedError(run_id=run_id, status=row.status.value)
        _resume(journal, row, now)


def _resume(journal: Journal, row: RunRow, now: float) -> None:
    if row.singleton is not None and (others := journal.live_singletons(row.function, row.singleton)):
        raise DurablyError(
            f"run {row.id!r} cannot be retried while run {others[0]!r} is live, since the singleton of "
            f"{row.function!r} allows one of them: wait for its end, or cancel it"
        )
    records = journal.records(row.id)
    # Another fence: whoever held the run when it failed must not go on with it.
    row = row.with_crashes(row.crash_log.forgiven())
    row = replace(row, status=RunStatus.RUNNING, owner=None, fence=row.fence + 1, ended_at=0.0)
    journal.take(row)
    journal.append(StepRecord(row.id, len(records), "", "run", "resumed", name=row.function, at=now), row.fence)
    for record in Recorded(records).failed_ends():
        child = journal.get(child_id(row.id, record.key)) if record.kind == "invoke" else None
        if child is not None and child.status is RunStatus.FAILED:
            _resume(journal, child, now)


def fork(
    journal: Journal, run_id: str, after: str, new: NewRun, *, worker: str | None, now: float
) -> tuple[RunRow, Changes]:
    """Create a run that begins with the records of another one.

    Args:
        journal: Where both are.
        run_id: The run it comes from.
        after: The key of the step where that is cut.
        new: The new run. If it is there already, as this fork, that is it.
        worker: The worker that takes it, or ``None`` for any.
        now: Seconds since 1970.

    Raises:
        StepNotFoundError: If no such step has ended.
        DurablyError: If the id of the new run belongs to another one.
    """
    changes = Changes()
    with journal.transaction():
        records = journal.records(run_id)
        cut = cut_after(records, after)
        new = replace(new, origin=Origin(run_id, after).to_json())
        known = journal.get(new.id)
        if known is not None:
            if journal.records(new.id)[0].input != new.origin:
                raise DurablyError(f"run {new.id!r} is there already, and is not this fork: choose another id")
            return known, changes
        row = journal.add_run(new, worker, now, changes)
        first = StepRecord(new.id, 0, "", "run", "started")
        for record in prefix_records(records, cut, first)[1:]:
            journal.append(record, row.fence)
    return row, changes


def stick(journal: Journal, run_id: str, fence: int, record: StepRecord | None) -> None:
    """Leave a run whose code does not fit to other workers.

    Args:
        journal: Where it is.
        run_id: The run.
        fence: The token it was claimed with.
        record: What does not fit, or ``None`` if that is recorded already.

    Raises:
        StaleRunError: If the run has another owner or has ended.
    """
    with journal.transaction():
        row = journal.get(run_id)
        if row is None or row.fence != fence or row.status.final:
            raise StaleRunError(run_id=run_id, fence=fence)
        if record is not None:
            journal.append(record, fence)
        journal.set_status(run_id, RunStatus.STUCK, 0.0)
