"""Mutants of C25: crashes that are miscounted, or put down to the wrong code."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryJournal
from durably.backends.replay.crash_watch import CrashWatch
from durably.backends.replay.crashes import CrashLog
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.journal_types import Claim, RunRow
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import NonRetriableError
from durably.core.attempts import StepCall, step_crash_limit
from durably.core.errors import CrashLoopError, StepCrashedError
from durably.core.step_keys import Scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C25")
class CrashesForgottenAtRecovery(MemoryJournal):
    """A recovery begins to count anew."""

    def take(self, row: RunRow) -> None:
        log = row.crash_log
        counts, times, blamed = log.counts[-1:], log.times[-1:], log.blamed[-1:]
        super().take(row.with_crashes(CrashLog(counts=counts, times=times, blamed=blamed, due=log.due)))


@mutant("C25")
class CrashLimitOneTooLow(ReplaySteps):
    """The last crash that the limit allows fails the step."""

    async def check_crashes(self, scope: Scope, call: StepCall, asked: str) -> None:
        limit = step_crash_limit(call, self.function) - 1
        await super().check_crashes(scope, replace(call, crash_limit=limit), asked)


@mutant("C25")
class CrashLimitOneTooHigh(ReplaySteps):
    """One crash more than the limit is put up with."""

    async def check_crashes(self, scope: Scope, call: StepCall, asked: str) -> None:
        limit = step_crash_limit(call, self.function) + 1
        await super().check_crashes(scope, replace(call, crash_limit=limit), asked)


class _OfAnyStep(CrashWatch):
    def in_window(self, window: int, key: str) -> list[float]:
        return super().in_window(0, key)


@mutant("C25")
class CrashesOfOtherStepsCount(RunRecords):
    """A step is blamed for every crash of its run."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.watch = _OfAnyStep(log, row, records)


class _NeverAtRest(CrashWatch):
    def rests(self) -> None:
        self.cleared()


@mutant("C25")
class CrashesOfOtherRunsCount(RunRecords):
    """A run that waits is blamed for what crashed beside it."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.watch = _NeverAtRest(log, row, records)


@mutant("C25")
class CodeMayCrashForEver(Driver):
    """Only bodies are counted: a function whose own code kills the process is tried again for ever."""

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        if isinstance(error, CrashLoopError):
            return await self.attempt(run_pass)
        return await super().attempt_failed(run_pass, failures, error)


@mutant("C25")
class StopsAreCrashes(MemoryJournal):
    """A worker that stops while a body runs counts as one that crashed."""

    def let_go(self, worker: str, cut_off: Iterable[str]) -> None:
        for run_id in cut_off:
            row = self._runs[run_id]
            self.take(row.with_crashes(row.crash_log.crashed(self.count(run_id), 1.0)))
        self.release(worker)


class _Pausing(MemoryJournal):
    pause = 0.0

    def claim(
        self,
        worker: str,
        served: Sequence[str],
        now: float,
        unfit: Container[str] = (),
        *,
        moment: float | None = None,
        **options: Any,
    ) -> Claim:
        noticed = now if moment is None else moment
        for row in self._free(worker, served, now, unfit):
            if row.owner is not None:
                log = row.crash_log.crashed(self.count(row.id), noticed)
                due = noticed + self.pause if log.due and self.pause else 0.0
                self.take(replace(row.with_crashes(replace(log, due=due)), owner=None, fence=row.fence + 1))
        return super().claim(worker, served, now, unfit, moment=moment, **options)


@mutant("C25")
class NoPauseBetweenRecoveries(_Pausing):
    """A run that crashes again and again is taken up at once each time."""


@mutant("C25")
class PausesDoNotGrow(_Pausing):
    """A run that crashes again and again is taken up after the same pause each time."""

    pause = 1.0


@mutant("C25")
class CrashedStepsRaiseSomethingElse(ReplaySteps):
    """The failure of a step past its limit cannot be caught as what it is."""

    async def check_crashes(self, scope: Scope, call: StepCall, asked: str) -> None:
        try:
            await super().check_crashes(scope, call, asked)
        except StepCrashedError as error:
            raise NonRetriableError(str(error)) from error
