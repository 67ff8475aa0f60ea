"""`make bench`: an agent of 10 to 200 turns beside the floor, both measured in turn in one run.

Each figure is the median over rounds of ours divided by the floor's in the same round, so that a busy machine slows
both. Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import track

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core.errors import Signal
from durably.core.steps import Point
from tests.benchmarks.agent import MESSAGE, order_agent
from tests.benchmarks.floor import ListRows, TableRows, ThreadRows, run_floor
from tests.benchmarks.report import Report

TURNS = (10, 50, 100, 200)
SIZES = (200, 4000)
ROUNDS = 7


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


async def empty_files(directory: Path) -> tuple[int, int]:
    """Bytes of a file of the floor and of ours that nothing was written to: those of its tables."""
    TableRows(directory / "floor.db").close()
    async with SQLiteBackend(directory / "runs.db"):
        pass
    return os.path.getsize(directory / "floor.db"), os.path.getsize(directory / "runs.db")


async def sqlite_round(turns: int, size: int, directory: Path) -> tuple[float, float, int, int, float]:
    """Seconds, and bytes that a file grew by, of the floor and of ours; and of the floor off the loop the seconds."""
    empty = directory / "empty"
    empty.mkdir()
    floor_bytes, our_bytes = await empty_files(empty)
    rows = TableRows(directory / "floor.db")
    floor = await timed(lambda: run_floor(turns, size, rows))
    rows.close()
    apart = ThreadRows(directory / "apart.db")
    floor_apart = await timed(lambda: run_floor(turns, size, apart))
    apart.close()
    agent = order_agent(turns, size)
    async with SQLiteBackend(directory / "runs.db", [agent]) as backend:
        ours = await timed(lambda: backend.invoke(agent, MESSAGE))
    grown = os.path.getsize(directory / "floor.db") - floor_bytes, os.path.getsize(directory / "runs.db") - our_bytes
    return floor, ours, *grown, floor_apart


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
    with suppress(Crash):
        async with first:
            await (await first.start(agent, MESSAGE, run_id="r")).result()

    async def resume() -> None:
        async with SQLiteBackend(directory / "runs.db", [agent]) as second:
            await second.wait("r")

    return floor, await timed(resume)


def import_seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


async def measure(report: Report) -> None:
    cases = [(turns, size) for size in SIZES for turns in TURNS]
    with tempfile.TemporaryDirectory() as directory:
        floor, ours = await empty_files(Path(directory))
    report.note("sqlite: an empty file", ("", ""), f"{floor:,}", f"{ours:,}", kept=True)
    for turns, size in track(cases, description="measuring"):
        memory, sqlite, resume = [], [], []
        for _ in range(ROUNDS):
            memory.append(await memory_round(turns, size))
            with tempfile.TemporaryDirectory() as directory:
                sqlite.append(await sqlite_round(turns, size, Path(directory)))
            with tempfile.TemporaryDirectory() as directory:
                resume.append(await resume_round(turns, size, Path(directory)))
        case = (str(turns), str(size))

        def a_turn(seconds: float, turns: int = turns) -> str:
            return f"{seconds / turns * 1e6:,.0f} us/turn"

        report.add("memory: time", case, memory, a_turn, 10)
        report.add("sqlite: time, floor on the loop", case, [row[:2] for row in sqlite], a_turn)
        report.add("sqlite: time, floor in a thread", case, [(row[4], row[1]) for row in sqlite], a_turn, 1.2)
        report.add("sqlite: bytes beyond that", case, [row[2:4] for row in sqlite], "{:,.0f}".format, 1.5)
        report.add("sqlite: resume", case, resume, milliseconds, 10)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


def measure_imports(report: Report) -> None:
    # Both load little by themselves: it is the first name taken from them that costs.
    bare = [(import_seconds("import pydantic"), import_seconds("import durably.core")) for _ in range(9)]
    report.add("import, beside pydantic", ("", ""), bare, milliseconds, 1.3)
    first = [
        (import_seconds("from pydantic import BaseModel"), import_seconds("from durably.core import Agent"))
        for _ in range(9)
    ]
    report.add("first name, likewise", ("", ""), first, milliseconds, None)


def main() -> int:
    report = Report("durably beside a floor written by hand", "floor")
    asyncio.run(measure(report))
    measure_imports(report)
    Console().print(report.table)
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
