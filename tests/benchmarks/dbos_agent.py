"""The same agent on pydantic-ai, made durable by DBOS on SQLite. Only `make bench` installs it."""

# pyright: reportMissingImports=false

from __future__ import annotations

import time
from pathlib import Path

from dbos import DBOS
from pydantic_ai import Agent, UsageLimits
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.models.function import FunctionModel

from tests.benchmarks.pydantic_agent import answer
from tests.benchmarks.pydantic_agent import get_order as look_up

get_order = DBOS.step()(look_up)
agent = Agent(
    FunctionModel(answer),
    name="dbos-orders",
    instructions="You are brief.",
    capabilities=[DBOSDurability()],
    tools=[get_order],
)


@DBOS.workflow()
async def run(question: str) -> str:
    """The agent, as a workflow."""
    result = await agent.run(question, usage_limits=UsageLimits(request_limit=None))
    return str(result.output)


async def dbos_sqlite(turns: int, size: int, directory: Path) -> float:
    """With DBOS's system database in a file."""
    url = f"sqlite:///{directory / 'dbos.db'}"
    DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "CRITICAL"})
    DBOS.launch()
    try:
        start = time.perf_counter()
        output = await run(f"{turns} {size}")
        took = time.perf_counter() - start
    finally:
        DBOS.destroy()
    assert output == "All looked up."
    return took
