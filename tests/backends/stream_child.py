"""A web process that executes: it streams the run that it works on, and prints what it saw."""

from __future__ import annotations

import asyncio
import sys

from durably.backends import SQLiteBackend
from durably.core import Agent
from durably.testing.conformance.observing import Teller

teller = Agent("teller", model=Teller(fails=1), instructions="", stream=True)


async def main(path: str) -> None:
    async with SQLiteBackend(path, [teller]) as backend:
        run = await backend.start(teller, "go", run_id="run")
        async for item in run.stream():
            print(item.offset, repr(item.event), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
