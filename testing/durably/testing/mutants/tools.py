"""Mutants of C33: tools that are given too little, or do more than they should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from durably.backends.replay.steps import ReplaySteps
from durably.core.attempts import StepCall
from durably.core.tool_context import RunContext
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C33")
class SessionForgotten(ReplaySteps):
    """A body hears of its run what the input says, but not which conversation it goes on with."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        args = tuple(replace(arg, session_key=None) if isinstance(arg, RunContext) else arg for arg in call.args)
        return await super().run(scope, replace(call, args=args))


@mutant("C33")
class ContextLostOnTheWay(ReplaySteps):
    """A body that a crash cut off is not told again whom the run works for."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        if not self.records.row.crashes:
            return await super().run(scope, call)
        args = tuple(arg for arg in call.args if not isinstance(arg, RunContext))
        return await super().run(scope, replace(call, args=args))


@mutant("C33")
class ToolsListedAnew(ReplaySteps):
    """A run that is taken up lists the tools of its toolsets again."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        value = await super().run(scope, call)
        return await call.fn(*call.args) if call.key.startswith("list-") and self.records.row.crashes else value


@mutant("C33")
class OptionsChosenAnew(ReplaySteps):
    """A run that is taken up chooses the options of its model again."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        value = await super().run(scope, call)
        return await call.fn(*call.args) if call.key == "load-options" and self.records.row.crashes else value
