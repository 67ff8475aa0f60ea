"""What the agent loop costs on Inngest beside the same loop written by hand on the bare SDK: time, requests, state.

Both run on the protocol harness, in the same process, one after the other in turn; the engine itself takes the same for
both. The loop by hand is what a careful user writes: the same model, the SDK's own steps and serializer, each message
validated as it comes out of a step. `python -m tests.benchmarks.inngest`; exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import warnings
from dataclasses import dataclass

import fastapi
import httpx
import inngest
import inngest.fast_api
from pydantic import BaseModel
from rich.console import Console

from durably.backends.inngest import InngestBackend
from durably.core import AgentResult, user
from durably.core.messages import Message, ToolCall, ToolResultMessage
from durably.core.model import ModelRequest, ModelResponse, ToolSpec, Usage
from durably.testing.inngest import InngestEngine
from tests.benchmarks.agent import MESSAGE, order_agent, script
from tests.benchmarks.report import Report

CASES = ((20, 1000), (20, 4000), (60, 1000))
ROUNDS = 15


@dataclass
class Cost:
    """What one run took."""

    seconds: float
    requests: int
    state: int


async def durably_run(turns: int, size: int) -> Cost:
    """The agent on durably."""
    engine = InngestEngine()
    agent = order_agent(turns, size)
    async with InngestBackend(engine.client(), [agent], serve=engine.serve, now=engine.now) as backend:
        started = time.perf_counter()
        await backend.start(agent, MESSAGE)
        return await _cost(engine, started)


async def bare_run(turns: int, size: int) -> Cost:
    """The same loop by hand."""
    engine = InngestEngine()
    client = engine.client(serializer=inngest.PydanticSerializer())
    orders = client.create_function(
        fn_id="orders", trigger=inngest.TriggerEvent(event="orders"), output_type=AgentResult
    )(BareAgent(turns, size).run)
    app = fastapi.FastAPI()
    inngest.fast_api.serve(app, client, [orders])
    async with engine.serve(app) as address:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=address) as http:
            await http.put("/api/inngest")
        started = time.perf_counter()
        await client.send(inngest.Event(name="orders", data={"message": MESSAGE}))
        return await _cost(engine, started)


async def _cost(engine: InngestEngine, started: float) -> Cost:
    await engine.rest()
    seconds = time.perf_counter() - started
    (run,) = engine.runs.values()
    assert run.status == "COMPLETED", run.output
    return Cost(seconds, len(engine.calls), len(json.dumps(run.steps)))


class Order(BaseModel):
    """The tool's arguments."""

    order_id: str


class BareAgent:
    """A loop of model calls and tool calls on the SDK."""

    def __init__(self, turns: int, size: int) -> None:
        self.model = script(turns)
        self.answer = "x" * size
        self.tools = [
            ToolSpec(name="get_order", description="Look up one order.", parameters=Order.model_json_schema())
        ]

    async def run(self, ctx: inngest.Context) -> AgentResult:
        """The function."""
        system = await ctx.step.run("load-context", self.load_context, output_type=str)
        messages = await ctx.step.run("load-history", self.load_history, output_type=list[Message])
        messages.append(user(str(ctx.event.data["message"])))
        usage, iterations, tool_calls = Usage(), 0, 0
        while True:
            response = await ctx.step.run("think", self.think, system, messages, output_type=ModelResponse)
            usage += response.usage
            iterations += 1
            messages.append(response.message)
            calls = response.message.tool_calls
            if not calls:
                return AgentResult(
                    text=response.message.text, iterations=iterations, tool_calls=tool_calls, usage=usage
                )
            for call in calls:
                tool_calls += 1
                result = await ctx.step.run(f"tool-{call.name}", self.act, call, output_type=ToolResultMessage)
                messages.append(result)

    async def load_context(self) -> str:
        """The system prompt."""
        return "You are brief."

    async def load_history(self) -> list[Message]:
        """The conversation so far."""
        return []

    async def think(self, system: str, messages: list[Message]) -> ModelResponse:
        """One model call."""
        turn = sum(message.role == "assistant" for message in messages)
        return await self.model.complete(ModelRequest(system=system, messages=messages, tools=self.tools, turn=turn))

    async def act(self, call: ToolCall) -> ToolResultMessage:
        """One tool call."""
        Order.model_validate(call.arguments)
        return ToolResultMessage(call_id=call.id, name=call.name, content=self.answer)


def measure(report: Report) -> None:
    """Run both in turn, and add a row for each measure."""
    for turns, size in CASES:
        pairs: list[tuple[Cost, Cost]] = []
        for _ in range(ROUNDS):
            gc.collect()
            bare = asyncio.run(bare_run(turns, size))
            gc.collect()
            pairs.append((bare, asyncio.run(durably_run(turns, size))))
        case = (str(turns), str(size))
        seconds = [(bare.seconds * 1e3, ours.seconds * 1e3) for bare, ours in pairs]
        report.add("time", case, seconds, "{:,.0f} ms".format, 1.1)
        report.add("requests", case, [(bare.requests, ours.requests) for bare, ours in pairs], "{:,.0f}".format, 1.1)
        report.add("state: bytes", case, [(bare.state, ours.state) for bare, ours in pairs], "{:,.0f}".format, 1.0)


def main() -> int:
    """Print the table."""
    warnings.simplefilter("ignore", DeprecationWarning)
    report = Report("durably beside the bare Inngest SDK", other="by hand")
    measure(report)
    Console().print(report.table)
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
