"""The same agent on pydantic-ai in one process. Only `make bench` installs it."""

# pyright: reportMissingImports=false

from __future__ import annotations

import time
from pathlib import Path

from pydantic_ai import Agent, UsageLimits
from pydantic_ai.models.function import FunctionModel

from tests.benchmarks.pydantic_agent import answer, get_order

agent = Agent(FunctionModel(answer), instructions="You are brief.", tools=[get_order])


async def pydantic_ai_memory(turns: int, size: int, directory: Path) -> float:
    """Without any durability."""
    start = time.perf_counter()
    result = await agent.run(f"{turns} {size}", usage_limits=UsageLimits(request_limit=None))
    took = time.perf_counter() - start
    assert result.output == "All looked up."
    return took
