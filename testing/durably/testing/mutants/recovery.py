"""Mutants of C08 and C09: two owners, and changed code that is not noticed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryJournal
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import DurablyError, NonDeterminismError, SerializationError
from durably.core.errors import StaleRunError, SuspendSignal
from durably.core.history import Kind, StepRecord
from durably.core.replay import Recorded
from durably.core.step_keys import Scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C08")
class NoFencing(MemoryJournal):
    """Whoever writes to a run may do so, behind whatever is there."""

    def append(self, record: StepRecord, fence: int) -> None:
        self._records[record.run_id].append(replace(record, seq=len(self._records[record.run_id])))
        self.latest = record.at


@mutant("C08")
class FenceOnlyByPosition(MemoryJournal):
    """A worker that lost its run may write as long as nobody else has."""

    def append(self, record: StepRecord, fence: int) -> None:
        super().append(record, self._runs[record.run_id].fence)


@mutant("C08")
class StaleWriteTakesTheRunBack(MemoryJournal):
    """A refused write makes its worker the owner again, and the write is done."""

    def append(self, record: StepRecord, fence: int) -> None:
        try:
            super().append(record, fence)
        except StaleRunError:
            row = self._runs[record.run_id]
            self._runs[record.run_id] = replace(row, fence=fence)
            if not row.status.final:
                super().append(replace(record, seq=self.count(record.run_id)), fence)


@mutant("C08")
class WokenWorkersBeginBodies(ReplaySteps):
    """A worker that begins a body does not look whether its lease is over."""

    def before_body(self) -> None:
        return None


@mutant("C09")
class MismatchSwallowed(ReplaySteps):
    """A step that stands elsewhere in the records is taken for a new one."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        try:
            return await super().take(scope, key, kind, asked)
        except NonDeterminismError:
            return None

    def check_end(self, scope: Scope) -> None:
        return


class _ByKey(Recorded):
    def take(self, scope: Scope, key: str, kind: Kind, input: str) -> StepRecord | None:
        return self.last(key)

    def check_end(self, scope: Scope) -> None:
        return


@mutant("C09")
class OldShapesAreErrorsOfTheCode(Driver):
    """A record that the code of now cannot read fails the run with the error of the type."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        unread = error.__cause__
        return await super().attempt_failed(
            run_pass, failures, unread if isinstance(unread, SerializationError) else error
        )


@mutant("C09")
class StepsInAnyOrder(RunRecords):
    """A recorded step is found by its key alone, wherever, whatever and with which input it was."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded = _ByKey(records)


@mutant("C09")
class InputsNotCompared(ReplaySteps):
    """A recorded step is given back for other arguments too."""

    def asked(self, args: Sequence[Any], key: str) -> str:
        super().asked(args, key)
        return ""


@mutant("C09")
class LeftoversIgnored(ReplaySteps):
    """Code that ends before its recorded steps are used up ends well."""

    def check_end(self, scope: Scope) -> None:
        if scope.prefix:
            super().check_end(scope)


@mutant("C09")
class MismatchCanBeCaught(ReplaySteps):
    """User code that catches the error goes on as if nothing were."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        try:
            return await super().take(scope, key, kind, asked)
        except NonDeterminismError as error:
            raise DurablyError(str(error)) from error  # of this one, the steps do not know that it is final

    def check_end(self, scope: Scope) -> None:
        return


@mutant("C08")
class WokenWorkersGiveUp(ReplaySteps):
    """A worker whose lease was over lets go of its runs, although nobody has taken them."""

    async def _may_begin(self) -> None:
        if time.time() >= self.host.lease.until:
            self.records.stale = True
            raise SuspendSignal
        await super()._may_begin()


@mutant("C09")
class SidesSwapped(ReplaySteps):
    """The error calls what was recorded what was asked for, and the other way round."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        try:
            return await super().take(scope, key, kind, asked)
        except NonDeterminismError as error:
            raise NonDeterminismError(step=error.step, recorded=error.asked, asked=error.recorded) from error


@mutant("C09")
class OnlyBodiesAreCompared(ReplaySteps):
    """What events, calls, sleeps and waits ask for is not compared."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        known = self.records.recorded.last(key)
        if known is not None and kind != "step":
            asked = known.input
        return await super().take(scope, key, kind, asked)


class _AnyBranches(Recorded):
    def take_gather(self, scope: Scope, key: str, branches: int) -> None:
        super().take_gather(scope, key, 10**6)


@mutant("C09")
class MissingBranchesIgnored(RunRecords):
    """A branch that was recorded, and is gone from the code, is not missed."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded = _AnyBranches(records)
