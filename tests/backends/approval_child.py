"""A process in which an agent asks and a person answers with other arguments; it kills itself at a point, if told to.

Called as: approval_child.py DATABASE LEDGER [POINT STEP]. Prints what the model was told, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import Agent, ApprovalNotPendingError, current_step, tool
from durably.core.messages import ToolResultMessage
from durably.core.steps import Point
from durably.testing import ScriptedModel, call

DATABASE, LEDGER, *KILL = sys.argv[1:]


@tool(requires_approval=lambda amount: amount > 100)
async def pay(amount: int) -> str:
    """Pay."""
    line = json.dumps([current_step().idempotency_key, amount])
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
    return f"paid {amount}"


SCRIPT = ScriptedModel(call("pay", amount=1), call("pay", amount=1000), "done")
clerk = Agent("clerk", model=SCRIPT, instructions="", tools=[pay])


def kill(point: Point) -> None:
    if [point.name, point.key] == KILL:
        os.kill(os.getpid(), signal.SIGKILL)


async def answer(backend: SQLiteBackend) -> None:
    while True:
        for asked in await backend.approvals():
            try:
                await backend.approve(asked, by="Zoe", arguments={"amount": 10})
            except ApprovalNotPendingError:
                continue
        await asyncio.sleep(0.01)


async def run() -> None:
    backend = SQLiteBackend(Path(DATABASE), [clerk])
    backend.probe = kill
    async with backend:
        person = asyncio.create_task(answer(backend))
        result = await (await backend.start(clerk, "pay", run_id="the-run")).result()
        person.cancel()
        print(json.dumps([each.content for each in result.messages if isinstance(each, ToolResultMessage)]))


asyncio.run(run())
