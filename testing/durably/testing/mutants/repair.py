"""Mutants of C26: runs taken up again, forked, or patched in the wrong way; runs whose code does not fit given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.journal_types import Changes, NewRun, RunRow
from durably.backends.replay.records import Log, RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core.errors import SuspendSignal
from durably.core.history import StepRecord
from durably.core.ids import derive_id
from durably.core.replay import Recorded
from durably.core.run_view import RunStatus, RunView
from durably.core.step_keys import Scope
from durably.core.steps import StepInfo
from durably.testing.mutants.identity import IdempotencyKeyPerAttempt
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C26")
class RetryStartsOver(RunRecords):
    """A run that is retried forgets what it had committed."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        if any(record.status == "resumed" for record in records):
            self.recorded = Recorded([])


@mutant("C26")
class RetryKeepsTheFailure(RunRecords):
    """A retry does not take up the step that failed: it gives its caller the same error again."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded = Recorded(record for record in records if record.status != "resumed")


class _AllReopened(Recorded):
    def failed_ends(self) -> list[StepRecord]:
        return [record for record in self._last.values() if record.status == "failed"]


@mutant("C26")
class RetryTakesUpEveryFailure(RunRecords):
    """A retry runs steps again whose failure the code had caught, and gone on from."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded = _AllReopened(records)


@mutant("C26")
class RetryCountsOldFailures(RunRecords):
    """The step that failed goes on with the attempts it had used up."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded._failures.update(self.recorded._earlier)
        self.recorded._earlier.clear()


@mutant("C26")
class RetryNumbersAttemptsAnew(RunRecords):
    """The number of an attempt forgets those that came before the retry."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded._earlier.clear()


@mutant("C26")
class RetriedFunctionsHaveNoAttemptsLeft(Driver):
    """A retried run counts the attempts of its code that had failed before."""

    def _begin(self, row: RunRow, records: Sequence[StepRecord], scheduler: Any) -> RunPass:
        begun = super()._begin(row, records, scheduler)
        return replace(begun, failures=sum(record.status == "retrying" and not record.key for record in records))


@mutant("C26")
class RetryForgetsItsTrace(MemoryJournal):
    """A retry takes back the end of the run instead of writing behind it."""

    def append(self, record: StepRecord, fence: int) -> None:
        if record.status == "resumed":
            self._records[record.run_id].pop()
            return
        super().append(record, fence)


@mutant("C26")
class AnyEndedRunIsRetried(Log):
    """A run that has completed, or was cancelled, is taken up again too."""

    def resume(self, run_id: str, now: float) -> asyncio.Future[None]:
        self.journal.set_status(run_id, RunStatus.FAILED, 0.0)
        return super().resume(run_id, now)


@mutant("C26")
class RetryLeavesTheChildren(Log):
    """A retry does not take up the child that had failed the run."""

    def resume(self, run_id: str, now: float) -> asyncio.Future[None]:
        journal = self.journal
        assert isinstance(journal, MemoryJournal)
        children = {each: journal._runs[each] for each in journal._children.get(run_id, ())}
        resumed = super().resume(run_id, now)
        for child in children.values():
            journal.take(child)
        return resumed


@mutant("C26")
class ForksStartOver(Log):
    """A fork begins with nothing of the other run."""

    def fork(self, run_id: str, after: str, new: NewRun, now: float) -> asyncio.Future[tuple[RunRow, Changes]]:
        return self.create(new, now)


@mutant("C26")
class ForksTakeEverything(MemoryBackend):
    """A fork begins with all steps of the other run, also those behind the cut."""

    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        ended = [record.key for record in self.journal.records(run_id) if record.key and record.final]
        return await super().fork_run(run_id, ended[-1] if after in ended else after, new_id)


@mutant("C26")
class ForksKeepWhatHadBegun(MemoryBackend):
    """A fork takes over steps that had only begun, and waits for what the other run has got."""

    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        view = await super().fork_run(run_id, after, new_id)
        begun = [record for record in self.journal.records(run_id) if record.kind == "wait_for_event"]
        kept = self.journal._records[new_id]
        kept += [replace(record, run_id=new_id, seq=len(kept)) for record in begun if record.status == "started"]
        return view


@mutant("C26")
class ForksKeepFailuresTakenUp(MemoryBackend):
    """A fork also begins with the failures that a retry of the other run took up again."""

    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        view = await super().fork_run(run_id, after, new_id)
        kept, last = self.journal._records[new_id], {record.key: record for record in self.journal.records(run_id)}
        failed = [each for each in self.journal.records(run_id) if each.status == "failed" and each.key]
        kept += [replace(each, run_id=new_id, seq=len(kept)) for each in failed if last[each.key] is not each]
        return view


@mutant("C26")
class ForksHideTheirOrigin(MemoryJournal):
    """A fork does not say which run it comes from."""

    def append(self, record: StepRecord, fence: int) -> None:
        super().append(replace(record, input="") if record.kind == "run" else record, fence)


@mutant("C26")
class WaitingIsFailing(Driver):
    """A run whose code does not fit fails, whatever its function says."""

    async def _leave(self, run_pass: RunPass, data: dict[str, Any], why: str) -> NoReturn:
        await run_pass.records.finish(run_pass.steps.root, "failed", 0.0, error=data)
        raise SuspendSignal


@mutant("C26")
class StuckRunsAreTriedForEver(Driver):
    """A run whose code does not fit is taken through it again and again."""

    async def _drive(self, row: RunRow) -> None:
        await super()._drive(row)
        log = self.host.log
        for _ in range(30):  # in one go, so that no busy machine hides it
            if row.id not in self.unfit or log.crash is not None:
                return
            self.unfit.discard(row.id)
            for again in log.journal.claim(log.worker, list(self.host.functions), 0.0).runs:
                await super()._drive(again)


@mutant("C26")
class StuckRunsAreLeftForGood(MemoryJournal):
    """No worker takes a stuck run again, whether its code fits or not."""

    def claimable(self, worker: str, served: Sequence[str], now: float) -> Iterable[RunRow]:
        return [row for row in super().claimable(worker, served, now) if row.status is not RunStatus.STUCK]


@mutant("C26")
class PatchesHoldForAll(ReplaySteps):
    """A run that was past the place of a patch goes by it all the same."""

    def patched(self, scope: Scope, patch_id: str) -> bool:
        super().patched(scope, patch_id)
        return True


@mutant("C26")
class PatchesAreNotRecorded(RunRecords):
    """The answer of a patch is given anew in each pass."""

    def _decide(self, patch_id: str, answer: bool) -> StepRecord:
        made = super()._decide(patch_id, answer)
        self._decided.clear()
        return made


@mutant("C26")
class PatchesAreAnsweredByPlace(RunRecords):
    """An old run goes over to the new code at the next place of the same patch."""

    def patched(self, scope: Scope, patch_id: str) -> bool:
        answer = super().patched(scope, patch_id)
        if not answer:
            del self.recorded._patches[patch_id]
            self._decided.clear()
        return answer


class _OneAnswer(Recorded):
    def _ahead(self, scope: Scope) -> int | None:
        return super()._ahead(scope.root)


@mutant("C26")
class BranchesGoByTheRun(RunRecords):
    """A branch is taken to be past a patch when only the code around it has gone on, or not to be when it has not."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded = _OneAnswer(records)


class _OwnIdOnly(Recorded):
    def _add_own(self, record: StepRecord) -> None:
        super()._add_own(record)
        self._alias = None


@mutant("C26")
class ForksForgetWhoseStepsTheyTook(RunRecords):
    """A fork takes a step that was given the id of the other run for one that was asked for something else."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self.recorded = _OwnIdOnly(records)


class _AfterARetry(StepInfo):
    __slots__ = ()

    @property
    def idempotency_key(self) -> str:
        return derive_id("effect", self.run_id, f"{self.key}{'' if self.attempt < 3 else ' again'}")


@mutant("C26")
class RetriesChangeTheIdempotencyKey(IdempotencyKeyPerAttempt):
    """A step that is taken up by a retry of its run sees another idempotency key."""

    info = _AfterARetry
