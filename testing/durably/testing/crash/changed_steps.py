"""Steps as changed code asks for them: one of them renamed, dropped, added, swapped or given another input.

The change is made between the code and its steps, so that it works for functions and for agents alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from durably.core import Context, Event, Function, FunctionRef, StepAPI
from durably.core.ids import step_id_of
from durably.core.serialization import codec_for, return_type
from durably.core.step_keys import Scope
from durably.core.steps import Duration

__all__ = ["ChangeKind", "ChangedSteps", "CodeChange", "change_function"]

ChangeKind = Literal["rename", "drop", "add", "swap", "input"]


@dataclass(frozen=True, slots=True)
class CodeChange:
    """One change of the code.

    Attributes:
        kind: ``rename`` gives the step another id, ``drop`` leaves it out, ``add`` puts a new one before it, ``swap``
            exchanges its id with that of the step after it, ``input`` gives its body one more argument.
        step: The key of the step.
        other: For ``swap``, the key of the other one.
    """

    kind: ChangeKind
    step: str
    other: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.step}" + (f" with {self.other}" if self.other else "")


_branch: ContextVar[Scope | None] = ContextVar("durably_changed_branch", default=None)


def change_function(
    function: Function[Any, Any], change: CodeChange, recorded: Mapping[str, str | None]
) -> Function[Any, Any]:
    """The same function, whose code asks for other steps.

    Args:
        function: The function.
        change: What is changed in its code.
        recorded: What the steps of the unchanged code returned, as JSON text by step key.
    """

    async def handler(ctx: Context[Any]) -> Any:
        return await function.handler(replace(ctx, step=ChangedSteps(ctx.step, change, recorded)))

    return function._replace(handler=handler)


class ChangedSteps(StepAPI):
    """Steps as the changed code asks for them."""

    def __init__(self, steps: StepAPI, change: CodeChange, recorded: Mapping[str, str | None]) -> None:
        self._steps = steps
        self._change = change
        self._recorded = recorded
        self._root = Scope()

    def _scope(self) -> Scope:
        # Keys are counted here once more, by the ids of the unchanged code: the engine sees the changed ones.
        return _branch.get() or self._root

    def _new_id(self, step_id: str) -> tuple[str, bool]:
        """What the changed code calls the step, and whether it is the changed one."""
        key = self._scope().key(step_id)
        change = self._change
        if change.kind == "swap" and key in (change.step, change.other):
            other = change.other if key == change.step else change.step
            return step_id_of(other), True
        if key != change.step:
            return step_id, False
        return (f"{step_id}-renamed" if change.kind == "rename" else step_id), True

    async def _add(self, hit: bool) -> None:
        if hit and self._change.kind == "add":
            await self._steps.run("added", _nothing)

    async def run(  # type: ignore[override]  # the overloads' types are for callers
        self, step_id: str, fn: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        name, hit = self._new_id(step_id)
        if hit and self._change.kind == "drop":
            # The changed code finds the same value without a step; else its result would differ for that reason alone.
            output = self._recorded[self._change.step]
            codec = codec_for(options.get("output_type") or return_type(fn))
            return None if output is None else codec.decode(output, step=step_id)
        await self._add(hit)
        if hit and self._change.kind == "input":
            return await self._steps.run(name, lambda *given: fn(*given[:-1]), *args, "changed", **options)
        return await self._steps.run(name, fn, *args, **options)

    async def invoke(
        self, step_id: str, function: FunctionRef[Any, Any], data: Any = None, *, timeout: Duration | None = None
    ) -> Any:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        return await self._steps.invoke(name, function, data, timeout=timeout)

    async def send_event(self, step_id: str, *events: Event) -> list[str]:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        return await self._steps.send_event(name, *events)

    async def sleep(self, step_id: str, duration: Duration) -> None:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        await self._steps.sleep(name, duration)

    async def sleep_until(self, step_id: str, when: datetime | float | str) -> None:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        await self._steps.sleep_until(name, when)

    async def wait_for_event(
        self, step_id: str, name: str, *, match: Mapping[str, Any] | None = None, timeout: Duration | None = None
    ) -> Event | None:
        new, hit = self._new_id(step_id)
        await self._add(hit)
        return await self._steps.wait_for_event(new, name, match=match, timeout=timeout)

    async def gather(self, *branches: Callable[[], Awaitable[Any]]) -> tuple[Any, ...]:
        scope = self._scope()
        key = scope.key("gather")
        return await self._steps.gather(
            *(_in_scope(scope.branch(key, index), branch) for index, branch in enumerate(branches))
        )


def _in_scope(scope: Scope, branch: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    async def run() -> Any:
        token = _branch.set(scope)
        try:
            return await branch()
        finally:
            _branch.reset(token)

    return run


async def _nothing() -> None:
    return None
