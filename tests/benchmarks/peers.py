"""One agent in memory and in a file, on durably, LangGraph, pydantic-ai and DBOS: time a turn, and bytes on disk.

There are no limits here: it is a picture of what each keeps, and what that costs. Each is used as its documents say and
checked to give the same answer; LangGraph's file is written with ``synchronous=FULL``, as ours is, DBOS's with its own
settings. A round runs them all in turn, each in a fresh directory; each figure is the median of the rounds.

Called as: python -m tests.benchmarks.peers [--picture FILE]
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

from matplotlib import pyplot
from rich.console import Console
from rich.progress import track
from rich.table import Table

from durably.backends import MemoryBackend, SQLiteBackend
from tests.benchmarks.agent import MESSAGE, order_agent
from tests.benchmarks.dbos_agent import dbos_sqlite
from tests.benchmarks.langgraph_agent import langgraph_memory, langgraph_sqlite
from tests.benchmarks.pydantic_local import pydantic_ai_memory

TURNS = (10, 50, 100, 200)
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

    @property
    def milliseconds(self) -> float:
        """Of the whole run, the median."""
        return statistics.median(self.seconds) * 1e3

    @property
    def kilobytes(self) -> float:
        """On disk at the end, the median."""
        return statistics.median(self.size) / 1e3


Results = dict[tuple[int, int], dict[str, Figures]]
"""By turns and the size of a result, then by name."""


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


def measure_all() -> Results:
    """Every agent on everything."""
    measure(TURNS[0], SIZES[0])  # what is loaded or made at the first use is no turn's
    cases = [(turns, size) for size in SIZES for turns in TURNS]
    return {(turns, size): measure(turns, size) for turns, size in track(cases, description="measuring")}


def table_of(results: Results) -> Table:
    """The figures to read."""
    table = Table(title="one agent, one tool call a turn")
    for column in ("engine", "turns", "result", "a turn", "on disk"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for (turns, size), figures in results.items():
        for name, got in figures.items():
            disk = f"{got.kilobytes:,.0f} kB" if got.kilobytes else ""
            table.add_row(name, str(turns), str(size), f"{got.milliseconds / turns:.2f} ms", disk)
        table.add_section()
    return table


def draw(results: Results, path: Path) -> None:
    """The same to look at, for results of 200 characters."""
    figure, (time_axes, disk_axes) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in PEERS:
        got = [results[turns, SIZES[0]][name] for turns in TURNS]
        style: dict[str, Any] = {"marker": "o", "linewidth": 2.5 if "durably" in name else 1.2, "label": name}
        (line,) = time_axes.plot(TURNS, [each.milliseconds / n for each, n in zip(got, TURNS, strict=True)], **style)
        if got[0].kilobytes:
            disk_axes.plot(TURNS, [each.kilobytes for each in got], color=line.get_color(), **style)
    time_axes.set(title="milliseconds a turn", xlabel="turns", yscale="log")
    disk_axes.set(title="kilobytes on disk", xlabel="turns", yscale="log")
    for axes in (time_axes, disk_axes):
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*time_axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Print it, and draw it if asked."""
    warnings.simplefilter("ignore")
    results = measure_all()
    Console().print(table_of(results))
    if sys.argv[1:2] == ["--picture"]:
        draw(results, Path(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
