"""How runs are created and end, under the rules of flow control: within a transaction, on any storage.

Does not own: what the rules of flow control say (``flow/``).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property
from typing import Any

from durably.backends.replay.flow.admission import Admission
from durably.backends.replay.journal_types import Changes, NewRun, RunRow
from durably.backends.replay.storage import Storage
from durably.core import Event
from durably.core.cause import session_key_of
from durably.core.errors import MissingKeyError, error_to_json
from durably.core.history import StepRecord
from durably.core.run_view import RunStatus

__all__ = ["RunRules"]

logger = logging.getLogger("durably")

_ARRIVED = {"begins": RunStatus.RUNNING, "held": RunStatus.WAITING, "skipped": RunStatus.SKIPPED}


class RunRules(Storage):
    """Creates runs and ends them. What happens besides is noted in :class:`Changes`."""

    @cached_property
    def admission(self) -> Admission[Changes]:
        """Decides when runs begin."""
        return Admission(self, self.flow)

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
