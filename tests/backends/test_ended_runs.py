"""What becomes of the children of a run that ends before its code has waited for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.backends.memory import MemoryJournal
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import NewRun
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import Event, RunStatus
from durably.core.history import StepRecord

EVENT = Event("go").model_dump_json()


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize("status", [RunStatus.FAILED, None], ids=["ended", "goes on"])
def test_the_children_of_a_run_that_is_given_up_are_cancelled(
    engine: str, status: RunStatus | None, tmp_path: Path
) -> None:
    """As after crashes of its code: nobody waits for them any more."""
    journal: Journal = MemoryJournal() if engine == "memory" else SQLiteJournal(tmp_path / "runs.db")
    journal.open()
    try:
        row, _ = journal.create(NewRun(id="parent", function="f", event=EVENT), worker=None, now=1.0)
        journal.create(NewRun(id="child", function="f", event=EVENT, parent="parent"), worker=None, now=1.0)
        journal.create(NewRun(id="grandchild", function="f", event=EVENT, parent="child"), worker=None, now=1.0)
        journal.create(NewRun(id="other", function="f", event=EVENT), worker=None, now=1.0)
        last = StepRecord("parent", 1, "", "run", "failed" if status else "retrying", at=2.0)
        changes = journal.commit(last, row.fence, status=status)
        found = [journal.get(run_id) for run_id in ("child", "grandchild", "other")]
        assert sorted(changes.cancelled) == (["child", "grandchild"] if status else [])
        left = RunStatus.CANCELLED if status else RunStatus.RUNNING
        assert [each and each.status for each in found] == [left, left, RunStatus.RUNNING]
    finally:
        journal.close()
