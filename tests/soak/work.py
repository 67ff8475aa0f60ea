"""What the soak runs: one function for each kind of step and of rule, whose bodies leave a line outside the engine."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from durably.core import Agent, Context, Event, Function, RetryPolicy, Singleton, current_step, function, tool
from durably.testing import ScriptedModel, call
from durably.testing.ledger import append_line

__all__ = ["EXPECTED", "FUNCTIONS", "INPUTS", "KEYS", "LEDGER", "note"]

LEDGER = "SOAK_LEDGER"
"""The environment variable that names the ledger."""

BODY_SECONDS = 0.03
NAP_SECONDS = 2.0
CRASH_LIMIT = 1000
"""No run is to be given up here: each must end as if nothing had happened."""

KEYS = 3
"""How many values the key of a singleton has."""


def note(kind: str, **fields: Any) -> None:
    """Append a line to the ledger."""
    append_line(Path(os.environ[LEDGER]), json.dumps({"kind": kind, "pid": os.getpid(), "at": time.time(), **fields}))


def begin() -> None:
    """Note that the body which calls this has begun."""
    step = current_step()
    note("body", run=step.run_id, key=step.key, attempt=step.attempt, idempotency=step.idempotency_key)


class Job(BaseModel):
    """The input of most functions: a number, which is also their result, and a key."""

    n: int
    key: str = ""


async def work(n: int) -> int:
    begin()
    await asyncio.sleep(BODY_SECONDS)
    return n


def work_in_thread(n: int) -> int:
    begin()
    time.sleep(BODY_SECONDS)
    return n


async def fail_first(n: int) -> int:
    begin()
    await asyncio.sleep(BODY_SECONDS)
    if current_step().attempt == 1:
        raise ConnectionError("the first attempt fails")
    return n


@function("steps", crash_limit=CRASH_LIMIT)
async def steps(ctx: Context[Job]) -> int:
    for _ in range(4):
        await ctx.step.run("async", work, ctx.input.n)
        await ctx.step.run("thread", work_in_thread, ctx.input.n)
    return ctx.input.n


@function("retries", crash_limit=CRASH_LIMIT, retry_policy=RetryPolicy(initial=0.05))
async def retries(ctx: Context[Job]) -> int:
    await ctx.step.run("flaky", fail_first, ctx.input.n)
    return await ctx.step.run("last", work, ctx.input.n)


@function("gathers", crash_limit=CRASH_LIMIT)
async def gathers(ctx: Context[Job]) -> int:
    async def branch() -> int:
        await ctx.step.run("first", work_in_thread, ctx.input.n)
        return await ctx.step.run("second", work, ctx.input.n)

    return (await ctx.step.gather(branch, branch, branch))[0]


@function("child", crash_limit=CRASH_LIMIT)
async def child(ctx: Context[Job]) -> int:
    return await ctx.step.run("work", work, ctx.input.n)


@function("parent", crash_limit=CRASH_LIMIT)
async def parent(ctx: Context[Job]) -> int:
    await ctx.step.run("before", work, ctx.input.n)
    found = await ctx.step.invoke("child", child, ctx.input)
    return await ctx.step.run("after", work, found)


@function("sleeper", crash_limit=CRASH_LIMIT)
async def sleeper(ctx: Context[Job]) -> int:
    await ctx.step.run("before", work, ctx.input.n)
    await ctx.step.sleep("nap", NAP_SECONDS)
    return await ctx.step.run("after", work, ctx.input.n)


@function("asker", crash_limit=CRASH_LIMIT)
async def asker(ctx: Context[Job]) -> int:
    asked = Event("soak/asked", {"n": ctx.input.n})
    answer, _ = await ctx.step.gather(
        lambda: ctx.step.wait_for_event("wait", "soak/answered", match={"n": ctx.input.n}),
        lambda: ctx.step.send_event("ask", asked),
    )
    return -1 if answer is None else int(answer.data["n"])


@function("answerer", triggers=["soak/asked"], crash_limit=CRASH_LIMIT)
async def answerer(ctx: Context[Job]) -> int:
    await ctx.step.run("think", work, ctx.input.n)
    await ctx.step.send_event("tell", Event("soak/answered", {"n": ctx.input.n}))
    return ctx.input.n


async def three(ctx: Context[Job]) -> int:
    for _ in range(3):
        await ctx.step.run("work", work, ctx.input.n)
    return ctx.input.n


@function("queued", singleton=Singleton(key="key", mode="queue"), crash_limit=CRASH_LIMIT)
async def queued(ctx: Context[Job]) -> int:
    return await three(ctx)


@function("skipped", singleton=Singleton(key="key", mode="skip"), crash_limit=CRASH_LIMIT)
async def skipped(ctx: Context[Job]) -> int:
    return await three(ctx)


@function("replaced", singleton=Singleton(key="key", mode="cancel"), crash_limit=CRASH_LIMIT)
async def replaced(ctx: Context[Job]) -> int:
    return await three(ctx)


@tool(requires_approval=True)
async def pay(order: str) -> str:
    """Pay for an order."""
    begin()
    await asyncio.sleep(BODY_SECONDS)
    return f"paid {order}"


payer = Agent(
    "payer",
    model=ScriptedModel(call("pay", order="7"), "done"),
    instructions="Pay.",
    tools=[pay],
    crash_limit=CRASH_LIMIT,
)

FUNCTIONS: list[Function[Any, Any]] = [
    steps,
    retries,
    gathers,
    child,
    parent,
    sleeper,
    asker,
    answerer,
    queued,
    skipped,
    replaced,
    payer,
]

INPUTS = {
    each.id: (lambda n: Job(n=n, key=f"k{n % KEYS}").model_dump())
    for each in (steps, retries, gathers, parent, sleeper, asker, queued, skipped, replaced)
} | {payer.id: lambda n: f"Pay, please. This is call {n}."}
"""The functions that the client starts, each with its input for the n-th run."""

EXPECTED = {skipped.id: {"completed", "skipped"}, replaced.id: {"completed", "cancelled"}}
"""How a run of a function may end; a function that is not named here completes."""
