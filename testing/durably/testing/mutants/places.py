"""Mutants that keep a clause in the function itself, and break it elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from durably.backends.replay.steps import ReplaySteps
from durably.core.attempts import StepCall
from durably.core.errors import NonDeterminismError
from durably.core.history import Kind, StepRecord
from durably.core.serialization import codec_for
from durably.core.step_keys import KeyedSteps, Scope, _scope
from durably.core.steps import _current
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []

T = TypeVar("T")


def _deep(scope: Scope) -> bool:
    """Whether a scope is a branch of a branch."""
    return scope.prefix.count("/") > 1


@mutant("C03")
class InnerBranchesRunAgain(ReplaySteps):
    """Bodies in a branch of a branch run again, although their record is there."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        return None if record is not None and record.final and kind == "step" and _deep(scope) else record


@mutant("C04")
class TypesAreLostInBranches(ReplaySteps):
    """In a branch, a replayed value comes back as plain JSON."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        if scope.prefix and not self.records.recorded.exhausted(scope):
            call = replace(call, codec=codec_for(Any))
        return await super().run(scope, call)


@mutant("C09")
class MismatchSwallowedInBranches(ReplaySteps):
    """In a branch, a step that stands elsewhere in the records is taken for a new one."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        try:
            return await super().take(scope, key, kind, asked)
        except NonDeterminismError:
            if scope.prefix:
                return None
            raise


@mutant("C09")
class LeftoversInBranchesIgnored(ReplaySteps):
    """A branch that ends before its recorded steps are used up ends well."""

    def check_end(self, scope: Scope) -> None:
        if not scope.prefix:
            super().check_end(scope)


@mutant("C11")
class ErrorsInBranchesFadeOnReplay(ReplaySteps):
    """In a branch, a replayed error has lost how often the step was tried."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        if record is None or record.error is None or not record.final or not _deep(scope):
            return record
        return replace(record, error={**record.error, "attempts": 0})


@mutant("C14")
class NestedStepsAllowedInBranches(KeyedSteps):
    """A step inside a body runs, if the body stands in a branch."""

    def enter(self, step_id: str) -> Scope:
        scope = _scope.get()
        if scope is None or not scope.prefix:
            return super().enter(step_id)
        token = _current.set(None)
        scope.busy = None
        try:
            return super().enter(step_id)
        finally:
            _current.reset(token)


@mutant("C18")
class StepsAtOnceRunInTurnInInnerBranches(KeyedSteps):
    """Two steps that a branch of a branch begins at the same time are run one after the other."""

    def enter(self, step_id: str) -> Scope:
        scope = _scope.get()
        if scope is not None and _deep(scope):
            scope.busy = None
        return super().enter(step_id)


@mutant("C27")
class TimeoutsInBranchesPass(KeyedSteps):
    """A timeout of the code's own around a step of a branch is let through."""

    async def _perform(self, step_id: str, act: Callable[[Scope, str], Awaitable[T]]) -> T:
        try:
            return await super()._perform(step_id, act)
        except Exception as error:
            if isinstance(error.__cause__ or error.__context__, asyncio.CancelledError) and _scope.get() is not None:
                self.root.refusal = None
                raise asyncio.CancelledError from error
            raise


@mutant("C10")
class NoRetriesInInnerBranches(ReplaySteps):
    """A step in a branch of a branch is not tried again."""

    async def run(self, scope: Scope, call: StepCall) -> Any:
        return await super().run(scope, replace(call, retries=0) if _deep(scope) else call)


@mutant("C07")
class InnerBranchesLogAgain(ReplaySteps):
    """A branch of a branch repeats its log lines on replay."""

    def is_replaying(self, scope: Scope) -> bool:
        return not _deep(scope) and super().is_replaying(scope)
