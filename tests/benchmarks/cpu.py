"""``python -m tests.benchmarks.cpu``: the CPU time of a step in a worker, on each engine, as `durably plan` assumes it.

CPU time does not depend on how busy the machine is. On Temporal the server is another process and is not in it; on
Inngest the harness's engine, which stands for the server, is.
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.testing import WorkflowEnvironment

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.inngest import InngestBackend
from durably.backends.temporal import TemporalBackend
from durably.core import Agent, Backend
from durably.core.ids import new_id
from durably.testing.inngest import InngestEngine
from tests.benchmarks.agent import MESSAGE, order_agent

TURNS, SIZE = 50, 1000
STEPS = 2 * TURNS + 2
"""Of one run: a model call and a tool call each turn, the instructions, and the answer."""


@asynccontextmanager
async def on_memory(agent: Agent) -> AsyncIterator[Backend]:
    async with MemoryBackend([agent]) as backend:
        yield backend


@asynccontextmanager
async def on_sqlite(agent: Agent) -> AsyncIterator[Backend]:
    with tempfile.TemporaryDirectory() as directory:
        async with SQLiteBackend(Path(directory) / "runs.db", [agent]) as backend:
            yield backend


@asynccontextmanager
async def on_temporal(agent: Agent) -> AsyncIterator[Backend]:
    server = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sysconfig.get_path("scripts")) / "temporal"), dev_server_log_level="error"
    )
    async with server, TemporalBackend(server.client, task_queue=new_id(), functions=[agent]) as backend:
        yield backend


@asynccontextmanager
async def on_inngest(agent: Agent) -> AsyncIterator[Backend]:
    engine = InngestEngine()
    async with InngestBackend(engine.client(), [agent], serve=engine.serve, now=engine.now) as backend:
        yield backend


ENGINES: dict[str, Callable[[Agent], Any]] = {
    "memory": on_memory,
    "sqlite": on_sqlite,
    "temporal": on_temporal,
    "inngest": on_inngest,
}


async def cpu_seconds(engine: str) -> float:
    """The CPU time of a step: the second run's, when caches are filled."""
    agent = order_agent(TURNS, SIZE)
    async with ENGINES[engine](agent) as backend:
        await backend.invoke(agent, MESSAGE)
        began = time.process_time()
        await backend.invoke(agent, MESSAGE)
        return (time.process_time() - began) / STEPS


def main(engines: list[str]) -> None:
    for engine in engines:
        print(f"{engine:<10}{asyncio.run(cpu_seconds(engine)) * 1e3:8.2f} ms of CPU a step", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(ENGINES))
