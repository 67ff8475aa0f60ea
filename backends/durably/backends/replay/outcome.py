"""How a run stands or ended, read from what is stored of it."""

from __future__ import annotations

from durably.backends.replay.journal import Journal, RunRow
from durably.core.backend import RunStatus, RunView
from durably.core.stuck import stuck_by

__all__ = ["find_run", "view_of"]


def find_run(journal: Journal, run_id: str) -> RunView | None:
    """A run at this moment, or ``None`` if there is none of this id."""
    row = journal.get(run_id)
    return None if row is None else view_of(journal, row)


def view_of(journal: Journal, row: RunRow) -> RunView:
    """A run as its row and its last record tell it."""
    # A run that is stuck tells why with its last record too.
    last = journal.last_record(row.id) if row.status.final or row.status is RunStatus.STUCK else None
    waits = row.status is RunStatus.WAITING and journal.flow is not None
    held = journal.flow.find("held", row.id) if waits and journal.flow is not None else None
    return RunView(
        id=row.id,
        function=row.function,
        status=row.status,
        output=last.output if last is not None and row.status is RunStatus.COMPLETED else None,
        error=last.error if last is not None and row.status.final else None,
        created_at=row.created_at,
        ended_at=last.at if last is not None and row.status.final else 0.0,
        parent=row.parent,
        stuck=None if last is None else stuck_by(last),
        waiting_for=f"its turn, by {held.value['stage']}=" if held is not None else "",
    )
