"""One agent in memory and in a file, on durably, LangGraph, pydantic-ai and DBOS: time a turn, and bytes on disk.

There are no limits here: it is a picture of what each keeps, and what that costs. Each is used as its documents say and
checked to give the same answer; LangGraph's file is written with ``synchronous=FULL``, as ours is, DBOS's with its own
settings. A round runs them all in turn, each in a fresh directory; each figure is the median of the rounds.

Called as: python -m tests.benchmarks.peers [TURNS ...]
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from durably.backends import MemoryBackend, SQLiteBackend
from tests.benchmarks.agent import MESSAGE, order_agent
from tests.benchmarks.dbos_agent import dbos_sqlite
from tests.benchmarks.langgraph_agent import langgraph_memory, langgraph_sqlite
from tests.benchmarks.pydantic_local import pydantic_ai_memory

TURNS = (10, 50, 200)
SIZES = (200, 4000)
ROUNDS = 3

ANSWER = "All looked up."

Peer = Callable[[int, int, Path], Coroutine[Any, Any, float]]
"""Runs the agent in a directory; gives seconds."""


async def durably_memory(turns: int, size: int, directory: Path) -> float:
    """Ours, in memory."""
    agent = order_agent(turns, size)
    async with MemoryBackend([agent]) as backend:
        start = time.perf_counter()
        result = await backend.invoke(agent, MESSAGE)
        took = time.perf_counter() - start
    assert result.text == ANSWER
    return took


async def durably_sqlite(turns: int, size: int, directory: Path) -> float:
    """Ours, in a file."""
    agent = order_agent(turns, size)
    async with SQLiteBackend(directory / "runs.db", [agent]) as backend:
        start = time.perf_counter()
        result = await backend.invoke(agent, MESSAGE)
        took = time.perf_counter() - start
    assert result.text == ANSWER
    return took


@dataclass
class Figures:
    """What one of them took, a run each."""

    seconds: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)


PEERS: dict[str, Peer] = {
    "durably, memory": durably_memory,
    "LangGraph, memory": langgraph_memory,
    "pydantic-ai, no durability": pydantic_ai_memory,
    "durably, SQLite": durably_sqlite,
    "LangGraph, SQLite": langgraph_sqlite,
    "pydantic-ai on DBOS, SQLite": dbos_sqlite,
}


def measure(turns: int, size: int) -> dict[str, Figures]:
    """Run them all, a few times in turn."""
    figures = {name: Figures() for name in PEERS}
    for _ in range(ROUNDS):
        for name, run in PEERS.items():
            with tempfile.TemporaryDirectory() as directory:
                gc.collect()
                # A loop of its own: DBOS takes the executor of the loop it ran in along when it ends.
                figures[name].seconds.append(asyncio.run(run(turns, size, Path(directory))))
                figures[name].size.append(sum(each.stat().st_size for each in Path(directory).iterdir()))
    return figures


def report(lengths: list[int]) -> Table:
    """The table."""
    table = Table(title="one agent, one tool call a turn")
    for column in ("engine", "turns", "result", "a turn", "on disk"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    cases = [(turns, size) for size in SIZES for turns in lengths]
    for turns, size in track(cases, description="measuring"):
        for name, got in measure(turns, size).items():
            seconds, kept = statistics.median(got.seconds), statistics.median(got.size)
            disk = f"{kept / 1e3:,.0f} kB" if kept else ""
            table.add_row(name, str(turns), str(size), f"{seconds / turns * 1e3:.2f} ms", disk)
        table.add_section()
    return table


def main() -> int:
    """Print it."""
    warnings.simplefilter("ignore")
    Console().print(report([int(each) for each in sys.argv[1:]] or list(TURNS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
