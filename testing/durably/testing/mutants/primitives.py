"""Mutants of C16, C17 and C18: invoke, send_event and gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durably.backends.memory import MemoryJournal
from durably.backends.replay.journal import NewRun, Received
from durably.backends.replay.steps import Execution
from durably.core import Event, FunctionRef, InvokeError, RunStatus
from durably.core.history import Kind, StepRecord
from durably.core.ids import new_id
from durably.core.step_keys import Branch, Scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C16")
class ChildStartedTwice(Execution):
    """A run that is taken up while it waits for a child starts another one."""

    async def _invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        record = self._recorded._last.get(key)
        if record is not None and not record.final:
            backend: Any = self._host
            await backend.start(function, data)
        return await super()._invoke(scope, key, function, data, timeout)


@mutant("C16")
class TimeoutLeavesTheChild(Execution):
    """A child that took too long goes on."""

    async def _append(
        self,
        scope: Scope,
        record: StepRecord,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
        status: RunStatus | None = None,
    ) -> StepRecord:
        return await super()._append(scope, record, runs, events, None, status)


@mutant("C16")
class FailedChildrenReturnNone(Execution):
    """A child that failed gives None."""

    async def _invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        try:
            return await super()._invoke(scope, key, function, data, timeout)
        except InvokeError:
            return None


@mutant("C16")
class ChildOutputUntyped(Execution):
    """A child's output comes back as plain JSON."""

    async def _invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        return await super()._invoke(scope, key, FunctionRef(function.id), data, timeout)


class _Sending(Execution):
    def change(self, events: Sequence[Event]) -> Sequence[Event]:
        raise NotImplementedError

    async def _settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        if "events" in fields:
            fields["events"] = self.change(fields["events"])
        await super()._settled(scope, key, kind, asked, output, **fields)


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
class EventLost(Execution):
    """The events are handed over after the step is recorded; a crash between the two loses them."""

    async def _settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        events: Sequence[Event] = fields.pop("events", ())
        await super()._settled(scope, key, kind, asked, output, **fields)
        backend: Any = self._host
        await backend.send(*events)


@mutant("C17")
class KnownEventsAreDelivered(MemoryJournal):
    """An event whose id was seen before is delivered again."""

    def _log(self, event: Event, now: float) -> Received | None:
        self._event_ids.clear()
        return super()._log(event, now)


@mutant("C18")
class ResultsByCompletion(Execution):
    """The results of a gather stand in the order in which the branches ended."""

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        ended: list[int] = []

        def noted(index: int, branch: Branch) -> Branch:
            async def run() -> Any:
                try:
                    return await branch()
                finally:
                    ended.append(index)

            return run

        outcomes = await super()._gather(scope, key, [noted(*each) for each in enumerate(branches)])
        return [outcomes[index] for index in ended]


@mutant("C18")
class OneFailureReported(Execution):
    """Of several failed branches only the first is told of."""

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        outcomes = await super()._gather(scope, key, branches)
        return next(([each] for each in outcomes if isinstance(each, Exception)), outcomes)


@mutant("C18")
class BranchesOneByOne(Execution):
    """The branches of a gather run one after another."""

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        outcomes = []
        for index, branch in enumerate(branches):
            self._recorded._order.pop(f"{key}[{index}]", None)
            try:
                outcomes.append(await branch())
            except Exception as error:
                outcomes.append(error)
        return outcomes


@mutant("C18")
class CrashRepeatsEveryBranch(Execution):
    """A gather that was cut off runs all its branches from their start."""

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        order = self._recorded._order.get(scope.prefix)
        if order and order[-1] == key:
            for prefix in [each for each in self._recorded._order if each.startswith(f"{key}[")]:
                del self._recorded._order[prefix]
        return await super()._gather(scope, key, branches)
