"""Mutants of C33: tools that are given too little, or do more than they should."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

from durably.backends.replay.steps import ReplaySteps
from durably.core.attempts import StepCall
from durably.core.history import StepRecord
from durably.core.ids import new_id
from durably.core.messages import Transcript
from durably.core.step_keys import Scope
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
class TheModelSeesTheContext(ReplaySteps):
    """What the run works for stands in the instructions of each request."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        return await super().run(scope, replace(call, args=tuple(self._shown(arg) for arg in call.args)))

    def _shown(self, arg: Any) -> Any:
        if not isinstance(arg, Transcript):
            return arg
        shown = copy(arg)
        shown.system = f"{arg.system} {self.host.log.journal.records(self.run_id)[0].output}"
        return shown


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


@mutant("C33")
class StepsOfToolsRunAgain(ReplaySteps):
    """The steps of a tool run again after a crash, although they are committed."""

    async def take(self, scope: Any, key: str, kind: Any, asked: str) -> Any:
        record = await super().take(scope, key, kind, asked)
        again = record is not None and record.final and kind == "step" and "think" in key and scope.prefix
        return None if again else record


@mutant("C33")
class ResourcesAreRecorded(ReplaySteps):
    """A record of a body holds the resources that it was given."""

    async def settled(self, scope: Any, key: str, kind: Any, asked: str, output: str, **fields: Any) -> None:
        fields.setdefault("name", repr(self.host.environment.resources))
        await super().settled(scope, key, kind, asked, output, **fields)


@mutant("C33")
class FunctionsThatAreToolsRunTwice(ReplaySteps):
    """A durable function that is a tool is started twice for one call."""

    async def _start_child(
        self, scope: Scope, key: str, function: str, child: str, event: str, asked: str, timeout: float | None
    ) -> StepRecord:
        again = self.host.new_run(new_id(), function, event, parent=self.run_id)
        self.host.log.create(again, self.clock.now())
        return await super()._start_child(scope, key, function, child, event, asked, timeout)
