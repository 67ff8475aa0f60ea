"""A process that runs one durable function on a SQLite file and kills itself at a point, if told to.

Called as: kill_child.py DATABASE LEDGER [POINT STEP]. Prints the result as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import Agent, Context, Event, RetryPolicy, current_step, function, tool
from durably.core.steps import Point
from durably.testing import ScriptedModel, call

DATABASE, LEDGER, *KILL = sys.argv[1:]


def effect(name: str) -> str:
    """Leaves a line outside the process, as an effect does."""
    step = current_step()
    line = json.dumps([name, step.key, step.attempt, step.idempotency_key])
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
    return name


@tool
async def charge(order_id: str) -> str:
    """Charge for one order."""
    effect(f"charge {order_id}")
    current_step().heartbeat()
    return f"charged {order_id}"


SCRIPT = ScriptedModel(
    call("charge", order_id="1"), [call("charge", order_id="2"), call("charge", order_id="3")], "done"
)
cashier = Agent("cashier", model=SCRIPT, instructions="Charge.", tools=[charge])


@function("listener", triggers=["order/charged"])
async def listener(ctx: Context[dict[str, str]]) -> None:
    await ctx.step.run("note", effect, f"note {ctx.input['by']}")


async def flaky() -> str:
    effect("flaky")
    if current_step().attempt == 1:
        raise ConnectionError("first time")
    return "second time"


@function("main", retry_policy=RetryPolicy(initial=0.01))
async def main(ctx: Context[str]) -> list[str]:
    told = await ctx.step.run("flaky", flaky)
    answer = await ctx.step.invoke("cashier", cashier, ctx.input)
    await ctx.step.send_event("tell", Event("order/charged", {"by": "main"}))
    await ctx.step.sleep("rest", 0.05)
    return [told, answer.text]


def kill(point: Point) -> None:
    if [point.name, point.key or point.function] == KILL:
        os.kill(os.getpid(), signal.SIGKILL)


async def run() -> None:
    backend = SQLiteBackend(Path(DATABASE), [main, cashier, listener])
    backend.probe = kill
    async with backend:
        result = await (await backend.start(main, "go", run_id="the-run")).result()
        for each in await backend.runs():
            await each.result()
        histories = {
            each.id: [list(map(str, [r.seq, r.key, r.status])) for r in await each.history()]
            for each in await backend.runs()
        }
        print(json.dumps({"result": result, "histories": histories}))


asyncio.run(run())
