"""Mutants of C01 and C02: wrong names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.backends.replay.steps import ReplaySteps
from durably.core import Event, FunctionRef
from durably.core.attempts import StepCall, StepOutput
from durably.core.history import Kind
from durably.core.ids import derive_id, new_id
from durably.core.step_keys import Branch, KeyedSteps, Scope, StepEngine
from durably.core.steps import StepInfo, _current
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


class _Unnumbered(Scope):
    def key(self, step_id: str) -> str:
        return self.prefix + step_id

    def branch(self, gather_key: str, index: int) -> Scope:
        return _Unnumbered(f"{gather_key}[{index}]/", self.window, self)


@mutant("C01")
class RepeatedIdsShareAKey(KeyedSteps):
    """A step id that is used again gets the key of its first use."""

    def __init__(self, engine: StepEngine) -> None:
        super().__init__(engine)
        self.root = _Unnumbered()


@mutant("C01")
class BranchesShareTheirNumbers(ReplaySteps):
    """The branches of a gather number their steps together, in the order in which they come."""

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        counts: dict[str, int] = {}
        for branch in branches:
            cells: Any = getattr(branch, "__closure__", ())
            own = next(cell.cell_contents for cell in cells if isinstance(cell.cell_contents, Scope))
            own.prefix, own._counts = f"{key}[0]/", counts
        return await super().gather(scope, key, branches)


@mutant("C01")
class KeysStartAnewAfterACrash(KeyedSteps):
    """The number of a repeated id goes on from how often the run was taken up."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        crashes = engine.records.row.crashes
        self.root.prefix = f"{len(crashes)}-" if crashes else ""


class _PerAttempt(StepInfo):
    __slots__ = ()

    @property
    def idempotency_key(self) -> str:
        return derive_id("effect", self.run_id, f"{self.key}#{self.attempt}")


@mutant("C02")
class IdempotencyKeyPerAttempt(ReplaySteps):
    """Each attempt of a step has another idempotency key."""

    info: type[StepInfo] = _PerAttempt

    async def attempt(self, scope: Scope, call: StepCall, attempt: int, asked: str) -> StepOutput | None:
        async def fn(*args: Any) -> Any:
            own = _current.get()
            assert own is not None
            token = _current.set(self.info(own.run_id, own.key, own.attempt, own.resources, own._beat))
            try:
                value = call.fn(*args)
                return await value if hasattr(value, "__await__") else value
            finally:
                _current.reset(token)

        return await super().attempt(scope, replace(call, fn=fn), attempt, asked)


class _PerRun(StepInfo):
    __slots__ = ()

    @property
    def idempotency_key(self) -> str:
        return derive_id("effect", self.run_id, "")


@mutant("C02")
class IdempotencyKeyPerRun(IdempotencyKeyPerAttempt):
    """All steps of a run have one idempotency key."""

    info = _PerRun


@mutant("C02")
class RandomEventIds(ReplaySteps):
    """The ids of events are made up when they are sent, and are not those the caller gets."""

    async def settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        events: Sequence[Event] = fields.get("events", ())
        if events:
            fields["events"] = [event.model_copy(update={"id": new_id()}) for event in events]
        await super().settled(scope, key, kind, asked, output, **fields)


@mutant("C02")
class ChildIdPerAttempt(ReplaySteps):
    """The id of a child depends on how often the run was taken up."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        # A started record from an earlier life is skipped: a new child is started under another key.
        crashes = self.records.row.crashes
        if crashes and not self.records.recorded.exhausted(scope):
            record = self.records.recorded.last(key)
            if record is not None and not record.final:
                scope.position += 1
                key = f"{key}-{len(crashes)}"
        return await super().invoke(scope, key, function, data, timeout)


@mutant("C01")
class StepsByKeyAlone(ReplaySteps):
    """What a step came to is found by its key, whichever run it is of."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        known = vars(self.host.log.journal).setdefault("known", {})
        return known.setdefault((self.function.id, call.key), await super().run(scope, call))


class _Flat(Scope):
    def branch(self, gather_key: str, index: int) -> Scope:
        return _Flat(f"{gather_key.rpartition('/')[2]}[{index}]/", self.window, self)


@mutant("C01")
class InnerBranchesForgetTheOuter(KeyedSteps):
    """The keys of a branch of a branch begin with the inner position alone."""

    def __init__(self, engine: StepEngine) -> None:
        super().__init__(engine)
        self.root = _Flat()


class _Numbered(Scope):
    def key(self, step_id: str) -> str:
        return f"{self.prefix}gather" if step_id == "gather" else super().key(step_id)


@mutant("C01")
class GathersAreNotNumbered(KeyedSteps):
    """The second gather of a run has the key of the first."""

    def __init__(self, engine: StepEngine) -> None:
        super().__init__(engine)
        self.root = _Numbered()


class _PerStepId(StepInfo):
    __slots__ = ()

    @property
    def idempotency_key(self) -> str:
        return derive_id("effect", self.run_id, self.key.rpartition("/")[2])


@mutant("C02")
class IdempotencyKeyPerStepId(IdempotencyKeyPerAttempt):
    """Two branches have one idempotency key for their steps of one id."""

    info = _PerStepId


class _OfAllRuns(StepInfo):
    __slots__ = ()

    @property
    def idempotency_key(self) -> str:
        return derive_id("effect", "", self.key)


@mutant("C02")
class IdempotencyKeyOfAllRuns(IdempotencyKeyPerAttempt):
    """All runs have one idempotency key for a step."""

    info = _OfAllRuns


@mutant("C02")
class EventIdsPerRun(ReplaySteps):
    """The id of an event is made from its run alone."""

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        named = [
            event.model_copy(update={"id": derive_id("event", self.run_id, str(n))}) for n, event in enumerate(events)
        ]
        return await super().send_event(scope, key, named)


@mutant("C02")
class ChildrenByStepId(ReplaySteps):
    """Two branches have one child for their steps of one id."""

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        self.child = derive_id("child", self.run_id, key.rpartition("/")[2])
        return await super().invoke(scope, key, function, data, timeout)

    async def _start_child(self, scope: Scope, key: str, function: str, child: str, *rest: Any) -> Any:
        return await super()._start_child(scope, key, function, self.child, *rest)

    async def _await_child(self, child: str, due: float | None) -> Any:
        return await super()._await_child(self.child, due)
