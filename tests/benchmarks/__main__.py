"""`make bench`: an agent of 10 to 200 turns beside the floor, both measured in turn in one run.

Each figure is the median over rounds of ours divided by the floor's in the same round, so that a busy machine slows
both. Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core.errors import Signal
from durably.core.steps import Point
from tests.benchmarks.agent import MESSAGE, order_agent
from tests.benchmarks.floor import ListRows, TableRows, run_floor

TURNS = (10, 50, 100, 200)
SIZES = (200, 4000)
ROUNDS = 7

Timed = Callable[[], Awaitable[float]]


class Crash(Signal):
    """Ends the first life, so that a resumption can be timed."""


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    gc.collect()
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def memory_round(turns: int, size: int) -> tuple[float, float]:
    """Seconds of the floor and of ours, in memory."""
    agent = order_agent(turns, size)
    floor = await timed(lambda: run_floor(turns, size, ListRows()))
    async with MemoryBackend([agent]) as backend:
        return floor, await timed(lambda: backend.invoke(agent, MESSAGE))


async def sqlite_round(turns: int, size: int, directory: Path) -> tuple[float, float, int, int]:
    """Seconds and bytes on disk of the floor and of ours, in a file."""
    rows = TableRows(directory / "floor.db")
    floor = await timed(lambda: run_floor(turns, size, rows))
    rows.close()
    agent = order_agent(turns, size)
    async with SQLiteBackend(directory / "runs.db", [agent]) as backend:
        ours = await timed(lambda: backend.invoke(agent, MESSAGE))
    return floor, ours, os.path.getsize(directory / "floor.db"), os.path.getsize(directory / "runs.db")


async def resume_round(turns: int, size: int, directory: Path) -> tuple[float, float]:
    """Seconds to go on before the last turn, the floor's and ours: opening, reading, replaying, the last turn."""
    path = directory / "floor.db"
    rows = TableRows(path)
    await run_floor(turns, size, rows, stop_at=turns)
    rows.close()

    async def resume_floor() -> None:
        again = TableRows(path)
        await run_floor(turns, size, again)
        again.close()

    floor = await timed(resume_floor)
    agent = order_agent(turns, size)
    first = SQLiteBackend(directory / "runs.db", [agent])
    last = f"think:{turns}"

    def crash(point: Point) -> None:
        if (point.name, point.key) == ("before_start", last):
            raise Crash

    first.probe = crash
    try:
        async with first:
            await (await first.start(agent, MESSAGE, run_id="r")).result()
    except Crash:
        pass

    async def resume() -> None:
        async with SQLiteBackend(directory / "runs.db", [agent]) as second:
            await second._wait("r")

    return floor, await timed(resume)


def import_seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def median_ratio(pairs: list[tuple[float, float]]) -> float:
    return statistics.median(ours / floor for floor, ours in pairs)


class Report:
    """The table, and whether every limit was kept."""

    def __init__(self) -> None:
        self.table = Table(title="durably beside a floor written by hand")
        self.kept = True
        for column in ("what", "turns", "result", "floor", "durably", "ratio", "limit"):
            self.table.add_column(column, justify="left" if column == "what" else "right")

    def add(self, what: str, turns: str, size: str, floor: str, ours: str, ratio: float, limit: float) -> None:
        kept = ratio <= limit
        self.kept &= kept
        colour = "green" if kept else "red"
        self.table.add_row(what, turns, size, floor, ours, f"[{colour}]{ratio:.2f}[/]", f"{limit:g}")


def show(seconds: list[float], turns: int) -> str:
    return f"{statistics.median(seconds) / turns * 1e6:,.0f} us/turn"


async def measure(report: Report) -> None:
    for turns, size in track([(turns, size) for size in SIZES for turns in TURNS], description="measuring"):
        memory: list[tuple[float, float]] = []
        sqlite: list[tuple[float, float, int, int]] = []
        resume: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            memory.append(await memory_round(turns, size))
            with tempfile.TemporaryDirectory() as directory:
                sqlite.append(await sqlite_round(turns, size, Path(directory)))
            with tempfile.TemporaryDirectory() as directory:
                resume.append(await resume_round(turns, size, Path(directory)))
        floor, ours = [row[0] for row in memory], [row[1] for row in memory]
        report.add("memory: time", str(turns), str(size), show(floor, turns), show(ours, turns), median_ratio(memory), 10)
        pairs = [(row[0], row[1]) for row in sqlite]
        floor, ours = [row[0] for row in sqlite], [row[1] for row in sqlite]
        report.add("sqlite: time", str(turns), str(size), show(floor, turns), show(ours, turns), median_ratio(pairs), 1.5)
        _, _, floor_bytes, our_bytes = sqlite[-1]
        report.add(
            "sqlite: bytes", str(turns), str(size), f"{floor_bytes:,}", f"{our_bytes:,}", our_bytes / floor_bytes, 1.5
        )
        floor, ours = [row[0] for row in resume], [row[1] for row in resume]
        report.add(
            "sqlite: resume",
            str(turns),
            str(size),
            f"{statistics.median(floor) * 1e3:.1f} ms",
            f"{statistics.median(ours) * 1e3:.1f} ms",
            median_ratio(resume),
            10,
        )


def measure_imports(report: Report) -> None:
    pairs = [(import_seconds("from pydantic import BaseModel"), import_seconds("import durably.core")) for _ in range(9)]
    floor, ours = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    report.add("import", "", "", f"{floor * 1e3:.0f} ms", f"{ours * 1e3:.0f} ms", ours / floor, 1.3)


def main() -> int:
    report = Report()
    asyncio.run(measure(report))
    measure_imports(report)
    Console().print(report.table)
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
