"""A process whose tool kills it, each time in another way, beside runs that do not.

Called as: crash_loop_child.py DATABASE LEDGER WAY. Prints what became of the runs as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from durably.backends import SQLiteBackend
from durably.core import Agent, Context, current_step, function, tool
from durably.testing import ScriptedModel, call

DATABASE, LEDGER, WAY = sys.argv[1:]


def note(name: str) -> str:
    """Leaves a line outside the process."""
    line = json.dumps([name, current_step().attempt])
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
    return name


@tool
async def crunch() -> str:
    """Crunch numbers."""
    note("crunch")
    if WAY == "exit":
        os._exit(7)
    if WAY == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
    return "crunched"


SCRIPT = ScriptedModel(call("crunch"), "It cannot be done.")
analyst = Agent("analyst", model=SCRIPT, instructions="Crunch.", tools=[crunch], crash_limit=2)


@function("neighbour")
async def neighbour(ctx: Context[int]) -> list[str]:
    return [await ctx.step.run(f"step-{number}", note, f"neighbour-{ctx.input}-{number}") for number in range(3)]


@function("patient", crash_limit=1)
async def patient(ctx: Context[None]) -> Any:
    return await ctx.step.wait_for_event("answer", "child/answer", timeout=600)


async def run() -> None:
    async with SQLiteBackend(Path(DATABASE), [analyst, neighbour, patient]) as backend:
        waiting = await backend.start(patient, run_id="patient")
        others = [await backend.start(neighbour, number, run_id=f"neighbour-{number}") for number in range(5)]
        result = await (await backend.start(analyst, "Go", run_id="analyst")).result()
        told = [message.content for message in result.messages if message.role == "tool"]
        ended = [await other.result() for other in others]
        await waiting.refresh()
        print(json.dumps({"text": result.text, "told": told, "others": ended, "patient": waiting.status}))


asyncio.run(run())
