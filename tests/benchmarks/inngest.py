"""What the agent loop costs on Inngest beside the same loop written by hand on the bare SDK: time, requests, state.

Both run on the protocol harness, in the same process, one after the other in turn; the engine itself takes the same for
both. `python -m tests.benchmarks.inngest`.
"""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import fastapi
import httpx
import inngest
import inngest.fast_api

from durably.backends.inngest import InngestBackend
from durably.core import ModelRequest, user
from durably.core.messages import ToolResultMessage
from durably.testing.inngest import InngestEngine
from tests.benchmarks.agent import MESSAGE, order_agent, script

TURNS, SIZE, ROUNDS = 20, 1000, 15


@dataclass
class Cost:
    """What one run took."""

    seconds: float
    requests: int
    state: int


def _cost(engine: InngestEngine, started: float) -> Cost:
    (run,) = engine.runs.values()
    assert run.status == "COMPLETED", run.output
    return Cost(time.perf_counter() - started, len(engine.calls), len(json.dumps(run.steps)))


async def durably_run() -> Cost:
    """The agent on durably."""
    engine = InngestEngine()
    agent = order_agent(TURNS, SIZE)
    async with InngestBackend(engine.client(), [agent], serve=engine.serve, now=engine.now) as backend:
        started = time.perf_counter()
        await backend.start(agent, MESSAGE)
        await engine.rest()
        return _cost(engine, started)


async def bare_run() -> Cost:
    """The same loop by hand: the same model, the same messages, the SDK's own steps."""
    engine = InngestEngine()
    client = engine.client()
    model = script(TURNS)

    @client.create_function(fn_id="orders", trigger=inngest.TriggerEvent(event="orders"))
    async def orders(ctx: inngest.Context) -> str:
        system = await ctx.step.run("load-context", _context)
        history: Any = await ctx.step.run("load-history", _history)
        messages: list[Any] = [*history, user(MESSAGE)]
        while True:

            async def think() -> dict[str, Any]:
                request = ModelRequest(system=system, messages=messages, tools=(), turn=(len(messages) - 1) // 2)
                response = await model.complete(request)
                return response.model_dump(mode="json")

            answer: Any = await ctx.step.run("think", think)
            messages.append(answer["message"])
            calls = [part for part in answer["message"]["parts"] if part["type"] == "tool_call"]
            if not calls:
                return str(answer["message"]["parts"][0]["text"])
            for call in calls:
                result = await ctx.step.run(f"tool-{call['name']}", _get_order)
                messages.append(ToolResultMessage(call_id=call["id"], name=call["name"], content=result))

    app = fastapi.FastAPI()
    inngest.fast_api.serve(app, client, [orders])
    async with engine.serve(app) as address:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=address) as http:
            await http.put("/api/inngest")
        started = time.perf_counter()
        await client.send(inngest.Event(name="orders"))
        await engine.rest()
        return _cost(engine, started)


async def _context() -> str:
    return "You are brief."


async def _history() -> list[Any]:
    return []


async def _get_order() -> str:
    return "x" * SIZE


def compare(rounds: int = ROUNDS) -> dict[str, float]:
    """How much more durably takes, as factors: ``time``, ``requests``, ``state``."""
    runs: dict[Callable[[], Awaitable[Cost]], list[Cost]] = {durably_run: [], bare_run: []}
    for _ in range(rounds):
        for run, costs in runs.items():
            costs.append(asyncio.run(run()))  # type: ignore[arg-type]  # both are coroutine functions
    ours, theirs = runs.values()
    return {
        "time": min(each.seconds for each in ours) / min(each.seconds for each in theirs),
        "requests": ours[0].requests / theirs[0].requests,
        "state": ours[0].state / theirs[0].state,
    }


def main() -> None:
    """Print the factors."""
    warnings.simplefilter("ignore", DeprecationWarning)
    for name, factor in compare().items():
        print(f"{name:<10} {factor:.2f} times the bare SDK")


if __name__ == "__main__":
    main()
