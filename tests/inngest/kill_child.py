"""A program to be killed: `python -m tests.inngest.kill_child SERVER LEDGER`. It dies in a tool, the first time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import inngest

from durably.backends.inngest import InngestBackend
from durably.core import Agent, current_step, tool
from durably.testing import ScriptedModel, call


async def main(server: str, ledger: Path) -> None:
    """Serve an agent until killed."""

    @tool
    async def charge(order_id: str) -> str:
        """Charge an order."""
        step = current_step()
        with ledger.open("a") as file:
            file.write(f"{step.idempotency_key} {step.attempt}\n")
        if len(ledger.read_text().splitlines()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"order {order_id} charged"

    model = ScriptedModel(call("charge", order_id="7"), "Done.")
    agent = Agent("agent", model=model, instructions="You charge.", tools=[charge])
    client = inngest.Inngest(app_id="app", api_base_url=server, event_api_base_url=server, is_production=False)
    async with InngestBackend(client, [agent]):
        print("up", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
