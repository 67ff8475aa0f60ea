"""A worker that stops its whole process just before a body, and lives on when somebody wakes it.

Called as: stopped_child.py DATABASE LEDGER NAME SECONDS [stop]. Ends when the run has.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.backends.replay import lease
from durably.core import Context, current_step, function
from durably.core.steps import Point

DATABASE, LEDGER, NAME, SECONDS, *STOP = sys.argv[1:]
lease.LEASE_SECONDS = float(SECONDS)


def work() -> str:
    with Path(LEDGER).open("a") as ledger:
        ledger.write(f"{NAME} {current_step().attempt}\n")
    return "done"


@function("stopped")
async def stopped(ctx: Context[None]) -> str:
    return await ctx.step.run("work", work)


def stop(point: Point) -> None:
    if STOP and point.name == "before_body":
        STOP.clear()
        os.kill(os.getpid(), signal.SIGSTOP)


async def run() -> None:
    backend = SQLiteBackend(DATABASE, [stopped])
    backend.probe = stop
    async with backend:
        print(await (await backend.start(stopped, run_id="the-run")).result())
        await asyncio.sleep(1 if NAME == "stale" else 0)  # whatever the stale one still does, it does now


asyncio.run(run())
