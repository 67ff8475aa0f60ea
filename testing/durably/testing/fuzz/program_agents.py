"""The agents of a program: what their models answer, and the tools of every kind that they call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic import BaseModel

from durably.core import (
    APPROVAL_REQUESTED,
    Agent,
    ApprovalRequest,
    Context,
    Function,
    Tool,
    approve,
    current_step,
    delegate,
    delegate_async,
    delegate_scheduled,
    function,
    reject,
    tool,
)
from durably.core.messages import ToolResultMessage, UserMessage
from durably.core.model import Delta, ModelRequest, ModelResponse
from durably.testing.fuzz.programs import CHANGED, AgentTools, ToolKind
from durably.testing.fuzz.world import World
from durably.testing.ledger import EffectLedger
from durably.testing.models.scripted import Reply, ScriptedModel, call

__all__ = ["MOMENT", "ProgramAgents"]

MOMENT = 1767225600.0
"""What a program takes for now, in seconds since 1970: one taken from a clock would differ from engine to engine."""

TOOLS: dict[ToolKind, str] = {
    "plain": "work",
    "approved": "guarded",
    "changed": "guarded",
    "refused": "guarded",
    "function": "job",
    "ask": "ask",
    "start": "start",
    "later": "later",
}


class Job(BaseModel):
    """What a durable function that is a tool works on."""

    spot: str
    value: int


class _Model(ScriptedModel):
    """Shows an answer in pieces, where it is asked to."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        response = await self.complete(request)
        text = response.message.text
        for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
            if piece:
                yield Delta(kind="text", text=piece)
        yield response


class ProgramAgents:
    """Makes the agents of a program.

    Args:
        world: Where the effects of their tools go.
        ledger: What their bodies note themselves when they start.

    Attributes:
        desk: The function that answers for the person who is asked, or ``None``: nobody is.
    """

    def __init__(self, world: World, ledger: EffectLedger) -> None:
        self.desk: Function[Any, Any] | None = None
        self._world = world
        self._ledger = ledger

    def agent(self, node: AgentTools, place: str) -> Agent:
        """The agent of a node. It says in the end what its tools have answered."""
        used: set[ToolKind] = {use.kind for turn in node.turns for use in turn}
        if used & {"approved", "changed", "refused"} and self.desk is None:
            self.desk = _desk()
        return Agent(
            f"agent{place}",
            model=_Model(lambda request: _reply(node, request)),
            instructions="work",
            tools=[*self._tools(used, place)],
            stream=node.stream,
        )

    def _tools(self, used: set[ToolKind], place: str) -> Sequence[Tool]:
        work = self._work(place)
        helper = Agent(f"helper{place}", model=ScriptedModel(_help), instructions="help", tools=[work])
        made: dict[str, Tool] = {
            "work": work,
            "guarded": self._work(place, name="guarded", requires_approval=True),
            "job": tool(self._job(place), name="job", description="Work in a run of its own."),
            "ask": delegate(helper, name="ask"),
            "start": delegate_async(helper, name="start"),
            "later": delegate_scheduled(helper, name="later", now=lambda: MOMENT),
        }
        return [made[name] for name in sorted({TOOLS[kind] for kind in used})]

    def _work(self, place: str, **options: Any) -> Tool:
        @tool(description="Work.", **options)
        async def work(spot: str, value: int) -> int:
            self._do(place, spot)
            return value

        return work

    def _job(self, place: str) -> Function[Any, Any]:
        async def body(spot: str) -> None:
            self._do(place, spot)

        @function(f"job{place}")
        async def job(ctx: Context[Job]) -> int:
            await ctx.step.run("do", body, ctx.input.spot)
            return ctx.input.value

        return job

    def _do(self, place: str, spot: str) -> None:
        self._ledger.body_started()
        self._world.note("effect", f"{place}/{spot}", current_step().run_id)


def _reply(node: AgentTools, request: ModelRequest) -> Reply:
    if request.turn == len(node.turns):
        results = [each for each in request.messages if isinstance(each, ToolResultMessage)]
        return json.dumps([_told(str(each.content)) for each in results])
    calls = []
    for index, use in enumerate(node.turns[request.turn]):
        spot = f"{request.turn}/{index}"
        match use.kind:
            case "plain" | "function":
                arguments: dict[str, Any] = {"spot": spot, "value": use.value}
            case "approved" | "changed" | "refused":
                arguments = {"spot": f"{spot} {use.kind}", "value": use.value}
            case _:
                arguments = {"task": f"{spot} {use.value}"}
        if use.kind == "later":
            arguments["when"] = 3600
        calls.append(call(TOOLS[use.kind], **arguments))
    return calls


def _told(content: str) -> str:
    """What a tool answered, without the ids that depend on the run."""
    return "started" if " works on its own; " in content else content


def _help(request: ModelRequest) -> Reply:
    """What a helper answers: it works on the value that it was handed, and says what came of it."""
    if request.turn:
        return next(str(each.content) for each in request.messages if isinstance(each, ToolResultMessage))
    asked = next(each for each in request.messages if isinstance(each, UserMessage))
    spot, value = str(asked.content).split()
    return call("work", spot=spot, value=int(value))


def _desk() -> Function[Any, Any]:
    @function("desk", triggers=[APPROVAL_REQUESTED])
    async def desk(ctx: Context[ApprovalRequest]) -> None:
        asked = ctx.input
        _, verdict = asked.arguments["spot"].split()
        if verdict == "refused":
            answer = reject(asked.approval, "no")
        elif verdict == "changed":
            answer = approve(asked.approval, arguments={**asked.arguments, "value": asked.arguments["value"] + CHANGED})
        else:
            answer = approve(asked.approval)
        await ctx.step.send_event("answer", answer)

    return desk
