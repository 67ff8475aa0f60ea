"""How a run stands or ended, read from what is stored of it."""

from __future__ import annotations

import time
from collections.abc import Collection

from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import RunRow
from durably.core.run_view import RunStatus, RunView
from durably.core.standing import Standing, standing, waits_for_turn, waits_for_worker
from durably.core.stuck import stuck_by

__all__ = ["find_run", "view_of"]


def find_run(journal: Journal, run_id: str) -> RunView | None:
    """A run at this moment, or ``None`` if there is none of this id."""
    row = journal.get(run_id)
    return None if row is None else view_of(journal, row)


def view_of(journal: Journal, row: RunRow, living: Collection[str] | None = None) -> RunView:
    """A run as its row and its records tell it.

    Args:
        journal: Where its records are.
        row: The run.
        living: The workers that are alive, if the caller has asked already.
    """
    # A run that is stuck tells why with its last record too.
    last = journal.last_record(row.id) if row.status.final or row.status is RunStatus.STUCK else None
    held = Standing(row.status) if last is not None else _standing(journal, row, living)
    return RunView(
        id=row.id,
        function=row.function,
        status=held.status,
        output=last.output if last is not None and row.status is RunStatus.COMPLETED else None,
        error=last.error if last is not None and row.status.final else None,
        created_at=row.created_at,
        ended_at=last.at if last is not None and row.status.final else 0.0,
        parent=row.parent,
        root=row.root,
        session_key=row.session_key,
        tags=row.tags,
        waiting_for=held.waiting_for,
        stuck=None if last is None else stuck_by(last),
    )


def _standing(journal: Journal, row: RunRow, living: Collection[str] | None) -> Standing:
    if row.status is RunStatus.WAITING:
        entry = None if journal.flow is None else journal.flow.find("held", row.id)
        return waits_for_turn("" if entry is None else entry.value["stage"], row.created_at)
    held = standing(journal.open_records(row.id))
    if row.owner is not None and row.owner in (journal.living(time.time()) if living is None else living):
        return held
    # When its worker was lost is not written down: since its last record at the longest.
    return waits_for_worker(held, row.function, journal.last_record(row.id).at)
