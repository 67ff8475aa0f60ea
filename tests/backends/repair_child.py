"""A process that repairs a run on a SQLite file and kills itself at a point, if told to.

Called as: repair_child.py DATABASE LEDGER CODE WHAT [POINT STEP]. CODE is the deployment; WHAT is done with the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import Context, InvokeError, Run, RunStatus, current_step, function
from durably.core.steps import Point

DATABASE, LEDGER, CODE, WHAT, *KILL = sys.argv[1:]


def effect(name: str) -> str:
    """Leaves a line outside the process, as an effect does."""
    step = current_step()
    line = json.dumps([name, step.run_id, step.key, step.attempt, step.idempotency_key])
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
    return name


@function("order", retries=0)
async def order(ctx: Context[None]) -> list[str]:
    step = ctx.step
    done = [await step.run("reserve", effect, "reserve")]
    new = CODE == "patched" and ctx.patched("pay-anew")
    done.append(await step.run("pay-anew" if new else "pay", effect, "pay-anew" if new else "pay"))
    if CODE == "bad":
        raise ValueError("a bug was deployed")
    done.append(await step.run("ship", effect, "ship"))
    return done


def kill(point: Point) -> None:
    if [point.name, point.key or point.function] == KILL:
        os.kill(os.getpid(), signal.SIGKILL)


async def act(backend: SQLiteBackend) -> Run[list[str]]:
    if WHAT == "start":
        return await backend.start(order, run_id="the-run")
    if WHAT == "fork":
        return await (await backend.run("the-run")).fork(after="reserve", run_id="the-fork")
    if WHAT == "new":
        return await backend.start(order, run_id="the-new-run")
    run: Run[list[str]] = await backend.run("the-run")
    return await run.retry() if WHAT == "retry" and run.status is RunStatus.FAILED else run


async def main() -> None:
    backend = SQLiteBackend(Path(DATABASE), [order])
    backend.probe = kill
    async with backend:
        run = await act(backend)
        try:
            result: object = await run.result()
        except InvokeError as error:
            result = error.error_type
        print(json.dumps([result, [record.key for record in (await run.history()).steps()]]))


asyncio.run(main())
