"""Mutants of C08 and C09: two owners, and changed code that is not noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryJournal
from durably.backends.replay.steps import Execution
from durably.core import NonDeterminismError
from durably.core.errors import StaleRunError
from durably.core.history import Kind, StepRecord
from durably.core.replay import Recorded
from durably.core.step_keys import Scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C08")
class NoFencing(MemoryJournal):
    """Whoever writes to a run may do so, behind whatever is there."""

    def _append(self, record: StepRecord, fence: int) -> None:
        self._records[record.run_id].append(replace(record, seq=len(self._records[record.run_id])))
        self.latest = record.at


@mutant("C08")
class FenceOnlyByPosition(MemoryJournal):
    """A worker that lost its run may write as long as nobody else has."""

    def _append(self, record: StepRecord, fence: int) -> None:
        super()._append(record, self._runs[record.run_id].fence)


@mutant("C08")
class StaleWriteTakesTheRunBack(MemoryJournal):
    """A refused write makes its worker the owner again, and the write is done."""

    def _append(self, record: StepRecord, fence: int) -> None:
        try:
            super()._append(record, fence)
        except StaleRunError:
            row = self._runs[record.run_id]
            self._runs[record.run_id] = replace(row, fence=fence)
            if not row.status.final:
                super()._append(replace(record, seq=self.count(record.run_id)), fence)


@mutant("C09")
class MismatchSwallowed(Execution):
    """A step that stands elsewhere in the records is taken for a new one."""

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        try:
            return await super()._take(scope, key, kind, asked)
        except NonDeterminismError:
            self._broken = None
            return None

    def check_end(self) -> None:
        return


class _ByKey(Recorded):
    def take(self, scope: Scope, key: str, kind: Kind, input: str) -> StepRecord | None:
        return self._last.get(key)

    def check_end(self, scope: Scope) -> None:
        return


@mutant("C09")
class StepsInAnyOrder(Execution):
    """A recorded step is found by its key alone, wherever, whatever and with which input it was."""

    def __init__(self, host: Any, function: Any, row: Any, records: Sequence[StepRecord]) -> None:
        super().__init__(host, function, row, records)
        self._recorded = _ByKey(records)


@mutant("C09")
class InputsNotCompared(Execution):
    """A recorded step is given back for other arguments too."""

    def _asked(self, args: Sequence[Any], key: str) -> str:
        super()._asked(args, key)
        return ""


@mutant("C09")
class LeftoversIgnored(Execution):
    """Code that ends before its recorded steps are used up ends well."""

    def check_end(self) -> None:
        if self._broken is not None:
            raise self._broken


@mutant("C09")
class MismatchCanBeCaught(Execution):
    """User code that catches the error goes on as if nothing were."""

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        try:
            return await super()._take(scope, key, kind, asked)
        except NonDeterminismError:
            self._broken = None
            raise

    def check_end(self) -> None:
        return
