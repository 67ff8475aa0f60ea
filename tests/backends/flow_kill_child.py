"""A process with runs under rules on a SQLite file, on a clock of its own, that kills itself at a point, if told to.

Called as: flow_kill_child.py DATABASE LEDGER SECONDS [POINT FUNCTION KEY OCCURRENCE]. SECONDS is where its clock
begins. Prints the runs as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, Event, Singleton, current_step, function
from durably.core.flow import Cron, CronTick, Debounce
from durably.core.steps import Point

DATABASE, LEDGER, SECONDS, *KILL = sys.argv[1:]
BEGAN = 1767225600.0
END = 200.0


def effect(name: str) -> None:
    """Leaves a line outside the process, as an effect does."""
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{json.dumps([name, current_step().idempotency_key])}\n".encode())
    os.close(descriptor)


@function("line", triggers=["came"], singleton=Singleton("key", mode="queue"))
async def line(ctx: Context[dict[str, int]]) -> None:
    await ctx.step.run("begin", effect, f"begin {ctx.input['n']}")
    await ctx.step.sleep("nap", 5)
    await ctx.step.run("end", effect, f"end {ctx.input['n']}")


@function("quiet", triggers=["came"], debounce=Debounce(period="30s", key="key"))
async def quiet(ctx: Context[dict[str, int]]) -> None:
    await ctx.step.run("say", effect, f"quiet {ctx.input['n']}")


@function("ticking", cron=Cron("* * * * *", missed="each"))
async def ticking(ctx: Context[CronTick]) -> None:
    await ctx.step.run("say", effect, f"tick {ctx.input.at.timestamp() - BEGAN:g}")


@function("until")
async def until(ctx: Context[float]) -> None:
    await ctx.step.sleep_until("moment", BEGAN + ctx.input)


passed = 0


def kill(point: Point) -> None:
    global passed
    if [point.name, point.function, point.key] == KILL[:3]:
        passed += 1
        if passed == int(KILL[3]):
            os.kill(os.getpid(), signal.SIGKILL)


async def run() -> None:
    backend = SQLiteBackend(Path(DATABASE), [line, quiet, ticking, until], clock=VirtualClock(BEGAN + float(SECONDS)))
    backend.probe = kill
    async with backend:
        # In one call, which keeps all of them before any run begins.
        await backend.send(*(Event("came", {"key": 1, "n": n}, id=f"event-{n}") for n in range(3)))
        await backend.invoke(until, END, run_id="until")
        runs = await backend.runs(limit=1000)
        print(json.dumps([[each.view.function, each.status] for each in runs]))


asyncio.run(run())
