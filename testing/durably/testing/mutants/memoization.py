"""Mutants of C03 to C07: things forgotten, remembered wrongly, or done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from durably.backends.memory import MemoryJournal
from durably.backends.replay.claims import Claims
from durably.backends.replay.driver import Driver, RunPass
from durably.backends.replay.journal_types import RunRow
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event, FunctionRef
from durably.core.attempts import StepCall, StepOutput, run_step
from durably.core.errors import SerializationError
from durably.core.history import Kind, StepRecord
from durably.core.ids import derive_id, new_id
from durably.core.model import ModelResponse
from durably.core.replay import Recorded
from durably.core.run_input import encode_data
from durably.core.serialization import Codec, codec_for
from durably.core.step_keys import KeyedSteps, Scope
from durably.core.steps import StepInfo
from durably.testing.mutants.identity import IdempotencyKeyPerAttempt
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C03")
class CommittedBodiesRunAgain(ReplaySteps):
    """A replay runs bodies whose record is there."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        return None if record is not None and record.final and kind == "step" else record


@mutant("C03")
class AcknowledgeBeforeCommit(RunRecords):
    """The caller gets the value of a step at once; the record is written along with the next one."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        self._late: list[tuple[Scope, StepRecord]] = []

    async def append(self, scope: Scope, record: StepRecord, **options: Any) -> StepRecord:
        if record.kind == "step" and record.status == "completed":
            self._late.append((scope, record))
            return record
        while self._late:
            await super().append(*self._late.pop(0))
        return await super().append(scope, record, **options)


@mutant("C03")
class FailedFunctionsStartOver(RunRecords):
    """When a function's own code has failed, its steps run again."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        if any(not record.key and record.status == "retrying" for record in records):
            self.recorded = Recorded([])


@mutant("C03")
class RecoveryDropsTheLastRecord(MemoryJournal):
    """Taking up a run after a crash cuts off its last record, as if it were torn."""

    def take(self, row: RunRow) -> None:
        if len(self._records[row.id]) > 1:
            self._records[row.id].pop()
        super().take(row)


@mutant("C04")
class FirstPassSeesTheRawValue(ReplaySteps):
    """The first pass gets the body's own value, the replay what was recorded of it."""

    async def attempt(self, scope: Scope, call: StepCall, attempt: int, asked: str) -> StepOutput | None:
        kept: list[Any] = []

        async def fn(*args: Any) -> Any:
            value = call.fn(*args)
            kept.append(await value if hasattr(value, "__await__") else value)
            return kept[-1]

        output = await super().attempt(scope, replace(call, fn=fn), attempt, asked)
        return output and StepOutput(output.text, kept[-1])


@mutant("C04")
class TypesAreLost(ReplaySteps):
    """Values come back as plain JSON, whatever the body says it returns."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        return await super().run(scope, replace(call, codec=codec_for(Any)))


@mutant("C04")
class LossySerializer(ReplaySteps):
    """Text is recorded as ASCII, and what does not fit is dropped."""

    async def settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        output = output.encode("ascii", "ignore").decode()
        await super().settled(scope, key, kind, asked, output, **fields)


class _Judging(Codec):
    def decode(self, text: str, *, step: str) -> Any:
        try:
            return self._judge.validate_json(text, by_alias=True, by_name=True)
        except ValidationError as error:
            raise SerializationError(str(error), step=step) from error


@mutant("C04")
class RecordedValuesAreJudgedAgain(ReplaySteps):
    """A value that is read back passes its type's validators once more."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        return await super().run(scope, replace(call, codec=_Judging(call.codec.type)))


@mutant("C04")
class EventsAreJudgedAgain(ReplaySteps):
    """What an event brings is judged at each attempt and replay."""

    def records_input(self) -> bool:
        return False


@mutant("C04")
class TypedAnswersAreJudgedAgain(ReplaySteps):
    """The verdict on a model's typed answer is not kept."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        value = await super().run(scope, call)
        return value.model_copy(update={"verdict": None}) if isinstance(value, ModelResponse) else value


@mutant("C04")
class InvokedInputsAreJudgedAgain(ReplaySteps):
    """A replay judges the input of a child that was started long ago."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        encode_data(function, data)
        return await super().invoke(scope, key, function, data, timeout)


@mutant("C13")
class EventsLoseNan(KeyedSteps):
    """What has no JSON form in an event becomes null."""

    async def send_event(self, step_id: str, *events: Event) -> list[str]:
        lost = (json.loads(event.model_dump_json(), parse_constant=lambda _: None) for event in events)
        return await super().send_event(step_id, *map(Event.model_validate, lost))


class _Trusting(Codec):
    def round_trip(self, value: Any, *, step: str, limit: int | None, redact: Callable[[str], str]) -> tuple[str, Any]:
        text = redact(self.encode(value, step=step, limit=limit))
        return text, self.decode(text, step=step)


@mutant("C13")
class ChangesAreSilent(ReplaySteps):
    """A value is recorded without a look at what will be read back."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        return await super().run(scope, replace(call, codec=_Trusting(call.codec.type)))


class _Bottomless(Codec):
    def check_depth(self, text: str, step: str) -> None:
        return


@mutant("C13")
class DepthIsNotLimited(ReplaySteps):
    """A value may be nested as deep as it can be read back alone."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        return await super().run(scope, replace(call, codec=_Bottomless(call.codec.type)))


@mutant("C05")
class AttemptsStartAtOneAfterACrash(RunRecords):
    """The number of an attempt forgets the attempts that were cut off."""

    def attempt(self, scope: Scope, key: str) -> int:
        return 1


@mutant("C05")
class BodiesRunTwice(ReplaySteps):
    """Every body runs twice and the second value counts."""

    async def attempt(self, scope: Scope, call: StepCall, attempt: int, asked: str) -> StepOutput | None:
        async def fn(*args: Any) -> Any:
            values = []
            for _ in range(2):
                value = call.fn(*args)
                values.append(await value if hasattr(value, "__await__") else value)
            return values[-1]

        return await super().attempt(scope, replace(call, fn=fn), attempt, asked)


@mutant("C05")
class CommitBeforeEffect(ReplaySteps):
    """A step is recorded as done, then its body runs."""

    async def attempt(self, scope: Scope, call: StepCall, attempt: int, asked: str) -> StepOutput | None:
        await self.settled(scope, call.key, "step", asked, "null", attempt=attempt)
        environment = self.host.environment
        return await run_step(call, environment, function=self.function.id, run_id=self.run_id, attempt=attempt)


@mutant("C06")
class NobodyGoesOn(Claims):
    """A worker that starts does not look for unfinished runs."""

    def claim_runs(self, otherwise: object = None) -> None:
        pass


@mutant("C06")
class CrashesAreFailures(Driver):
    """A run that was taken up twice is given up as failed."""

    async def attempt(self, run_pass: RunPass) -> bool:
        if run_pass.row.crashes:
            return await self.attempt_failed(run_pass, 10**6, RuntimeError("the worker died"))
        return await super().attempt(run_pass)


@mutant("C06")
class StopThrowsAwayRunningBodies(Driver):
    """An orderly stop cuts off the bodies that are running."""

    async def stop(self, grace: float) -> Collection[str]:
        return await super().stop(0.0)


@mutant("C07")
class LogLinesOnReplay(ReplaySteps):
    """Code that is replayed logs again."""

    def is_replaying(self, scope: Scope) -> bool:
        return False


@mutant("C07")
class BranchesLogAgain(ReplaySteps):
    """Code of a branch that is replayed logs again, once the run around it has no records left."""

    def is_replaying(self, scope: Scope) -> bool:
        return super().is_replaying(scope.root)


@mutant("C07")
class TailsLogAgain(ReplaySteps):
    """Code behind the last step of a branch logs again, although the run has gone on from its gather."""

    def is_replaying(self, scope: Scope) -> bool:
        return not self.records.recorded.exhausted(scope)


@mutant("C07")
class ReplayWritesRecords(ReplaySteps):
    """A replayed step is written to the journal once more."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        if record is not None and record.final:
            await self.records.append(scope, record)
        return record


@mutant("C07")
class ReplaySendsEventsAgain(ReplaySteps):
    """A replayed send_event hands over its events again, under new ids."""

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        if not self.records.recorded.exhausted(scope):
            again = [event.model_copy(update={"id": new_id()}) for event in events]
            self.host.log.publish(again, self.clock.now())
        return await super().send_event(scope, key, events)


@mutant("C07")
class PrefixRewritten(MemoryJournal):
    """Taking up a run writes its records anew, with the time of the recovery."""

    def take(self, row: RunRow) -> None:
        records = self._records[row.id]
        records[:] = [replace(record, at=self.latest) for record in records]
        super().take(row)


class _PerFailure(StepInfo):
    __slots__ = ()

    @property
    def idempotency_key(self) -> str:
        return derive_id("effect", self.run_id, f"{self.key}{'' if self.attempt == 1 else ' again'}")


@mutant("C05")
class IdempotencyKeyChangesWithTheSecondExecution(IdempotencyKeyPerAttempt):
    """A body that runs again sees another idempotency key."""

    info = _PerFailure


@mutant("C06")
class TheThirdCrashIsTheLast(Driver):
    """A run that was taken up three times is given up as failed."""

    async def attempt(self, run_pass: RunPass) -> bool:
        if len(run_pass.row.crashes) > 2:
            return await self.attempt_failed(run_pass, 10**6, RuntimeError("the worker died again and again"))
        return await super().attempt(run_pass)


@mutant("C06")
class RecoveredRunsSendNothing(ReplaySteps):
    """A run that was taken up after a crash sends no events."""

    async def settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        if self.records.row.crashes:
            fields.pop("events", None)
        await super().settled(scope, key, kind, asked, output, **fields)


@mutant("C07")
class ReplaysRunBodiesBeside(ReplaySteps):
    """A replayed step gives what was recorded, and its body runs once more all the same."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        replayed = not self.records.recorded.exhausted(scope)
        value = await super().run(scope, call)
        if replayed and call.key != "think":
            await run_step(call, self.host.environment, function=self.function.id, run_id=self.run_id, attempt=9)
        return value


@mutant("C07")
class ReplaysAskTheModel(ReplaySteps):
    """A replayed answer of a model is asked for once more."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        replayed = not self.records.recorded.exhausted(scope)
        value = await super().run(scope, call)
        if replayed and call.key == "think":
            await run_step(call, self.host.environment, function=self.function.id, run_id=self.run_id, attempt=9)
        return value
