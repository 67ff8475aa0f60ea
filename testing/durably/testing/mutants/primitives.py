"""Mutants of C16, C17 and C18: invoke, send_event and gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.journal_types import Received
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event, FunctionRef, InvokeError
from durably.core.error_spending import SPENT
from durably.core.errors import error_from_json, error_to_json
from durably.core.history import Kind, StepRecord
from durably.core.ids import new_id
from durably.core.replay import Recorded
from durably.core.run_events import started_event
from durably.core.run_input import encode_data
from durably.core.step_keys import Branch, KeyedSteps, Scope, _scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C16")
class ChildStartedTwice(ReplaySteps):
    """A run that is taken up while it waits for a child starts another one."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        record = self.records.recorded.last(key)
        if record is not None and not record.final:
            run_id = new_id()
            event = started_event(function, run_id, encode_data(function, data))
            self.host.log.create(self.host.new_run(run_id, function.id, event), self.clock.now())
        return await super().invoke(scope, key, function, data, timeout)


@mutant("C16")
class TimeoutLeavesTheChild(RunRecords):
    """A child that took too long goes on."""

    async def append(
        self, scope: Scope, record: StepRecord, *, cancel: str | None = None, **options: Any
    ) -> StepRecord:
        return await super().append(scope, record, **options)


@mutant("C16")
class FailedChildrenReturnNone(ReplaySteps):
    """A child that failed gives None."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        try:
            return await super().invoke(scope, key, function, data, timeout)
        except InvokeError:
            return None


@mutant("C16")
class SpendingOfFailedAgentsLost(ReplaySteps):
    """The error of a failed agent does not say what the agent had spent."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        try:
            return await super().invoke(scope, key, function, data, timeout)
        except InvokeError as error:
            said = error_to_json(error)
            said.pop(SPENT, None)
            raise error_from_json(said) from None


@mutant("C16")
class SpendingUntilTimeoutLost(MemoryBackend):
    """Nobody looks what an agent had spent that took too long."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.environment.services.spending = None


@mutant("C16")
class ChildOutputUntyped(ReplaySteps):
    """A child's output comes back as plain JSON."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        return await super().invoke(scope, key, FunctionRef(function.id), data, timeout)


class _Sending(ReplaySteps):
    def change(self, events: Sequence[Event]) -> Sequence[Event]:
        raise NotImplementedError

    async def settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        if "events" in fields:
            fields["events"] = self.change(fields["events"])
        await super().settled(scope, key, kind, asked, output, **fields)


@mutant("C17")
class EventTwice(_Sending):
    """Each event is sent twice."""

    def change(self, events: Sequence[Event]) -> Sequence[Event]:
        return [*events, *[event.model_copy(update={"id": new_id()}) for event in events]]


@mutant("C17")
class OnlyTheFirstEvent(_Sending):
    """Of several events only the first is sent."""

    def change(self, events: Sequence[Event]) -> Sequence[Event]:
        return events[:1]


@mutant("C17")
class TsIgnored(_Sending):
    """An event for later is delivered at once."""

    def change(self, events: Sequence[Event]) -> Sequence[Event]:
        return [event.model_copy(update={"ts": None}) for event in events]


@mutant("C17")
class EventLost(ReplaySteps):
    """The events are handed over after the step is recorded; a crash between the two loses them."""

    async def settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        events: Sequence[Event] = fields.pop("events", ())
        await super().settled(scope, key, kind, asked, output, **fields)
        self.host.log.publish(events, self.clock.now())


@mutant("C17")
class KnownEventsAreDelivered(MemoryJournal):
    """An event whose id was seen before is delivered again."""

    def log(self, event: Event, now: float) -> Received | None:
        self._event_ids.clear()
        return super().log(event, now)


@mutant("C18")
class ResultsByCompletion(ReplaySteps):
    """The results of a gather stand in the order in which the branches ended."""

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        ended: list[int] = []

        def noted(index: int, branch: Branch) -> Branch:
            async def run() -> Any:
                try:
                    return await branch()
                finally:
                    ended.append(index)

            return run

        outcomes = await super().gather(scope, key, [noted(*each) for each in enumerate(branches)])
        return [outcomes[index] for index in ended]


@mutant("C18")
class OneFailureReported(ReplaySteps):
    """Of several failed branches only the first is told of."""

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        outcomes = await super().gather(scope, key, branches)
        return next(([each] for each in outcomes if isinstance(each, Exception)), outcomes)


@mutant("C18")
class BranchesOneByOne(ReplaySteps):
    """The branches of a gather run one after another."""

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self.records.recorded.take_gather(scope, key, len(branches))
        outcomes: list[Any] = []
        for branch in branches:
            try:
                outcomes.append(await branch())
            except Exception as error:
                outcomes.append(error)
        return outcomes


@mutant("C18")
class CrashRepeatsEveryBranch(RunRecords):
    """A gather that was cut off runs all its branches from their start."""

    def __init__(self, log: Any, environment: Any, row: Any, records: Any, scheduler: Any) -> None:
        super().__init__(log, environment, row, records, scheduler)
        last = next((record.key for record in reversed(records) if record.key), "")
        if "[" in last:
            gather = last[: last.index("[") + 1]
            self.recorded = Recorded([record for record in records if not record.key.startswith(gather)])


@mutant("C18")
class StepsAtOnceRunInTurn(KeyedSteps):
    """Two steps that one branch begins at the same time are run one after the other."""

    def enter(self, step_id: str) -> Scope:
        (_scope.get() or self.root).busy = None
        return super().enter(step_id)


@mutant("C18")
class StepsThatNeverWait(ReplaySteps):
    """A step that has nothing to wait for is over before another can be begun beside it."""

    async def settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        await self.records.commit(scope, key, kind, "completed", input=asked, output=output, **fields)
        await self.pass_point("after_send" if kind == "send_event" else "after_commit", key)
        self._after_commit()


@mutant("C17")
class SendWaitsForItsListeners(ReplaySteps):
    """A step that sends events goes on only when all that they started has ended."""

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        ids = await super().send_event(scope, key, events)
        moments = [event.ts for event in events if event.ts is not None]
        if moments:
            await self.scheduler.sleep_until(max(moments))
        return ids


@mutant("C17")
class IdsInAnotherOrder(ReplaySteps):
    """The ids that a step returns do not stand in the order of its events."""

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        return (await super().send_event(scope, key, events))[::-1]


@mutant("C17")
class EventsComeLate(_Sending):
    """An event for later is delivered long after its time."""

    def change(self, events: Sequence[Event]) -> Sequence[Event]:
        return [event if event.ts is None else event.model_copy(update={"ts": event.ts + 1000}) for event in events]


@mutant("C18")
class TheFirstFailureEndsTheGather(ReplaySteps):
    """When one branch has failed, the others are cut off."""

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        failed: list[Exception] = []

        def cut_short(branch: Branch) -> Branch:
            async def run() -> Any:
                if failed:
                    return failed[0]
                outcome = await branch()
                if isinstance(outcome, Exception):
                    failed.append(outcome)
                return outcome

            return run

        async def one_by_one() -> list[Any]:
            return [await cut_short(branch)() for branch in branches]

        self.records.recorded.take_gather(scope, key, len(branches))
        return await one_by_one()


@mutant("C16")
class CallsTimeOutEarly(ReplaySteps):
    """A child that has a limit has hardly any time."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        return await super().invoke(scope, key, function, data, timeout and timeout / 1000)
