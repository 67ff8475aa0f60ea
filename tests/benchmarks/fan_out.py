"""``python -m tests.benchmarks.fan_out``: what one step costs where there are many of them, on every engine.

Each shape is run at a tenth of its size and in full. The cost of one step must not grow with their number: exits with 1
if a step of the large one takes more than `LIMIT` times as long as one of the small one. What an engine does not take
must be refused with ``TooManyStepsError``, which is printed. Without ``--engine``, on memory and on SQLite. Inngest is
the protocol harness, Temporal its development server.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.testing import WorkflowEnvironment

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.inngest import InngestBackend
from durably.backends.temporal import TemporalBackend
from durably.core import Backend, Context, InvokeError, function
from durably.core.ids import new_id
from durably.testing.inngest import InngestEngine

LIMIT = 2.0
ROUNDS = 3


async def echo(number: int) -> int:
    return number


@function("leaf")
async def leaf(ctx: Context[int]) -> int:
    return ctx.input


@function("row")
async def row(ctx: Context[int]) -> int:
    """So many steps, one after the other."""
    for number in range(ctx.input):
        await ctx.step.run("echo", echo, number)
    return ctx.input


@function("branches")
async def branches(ctx: Context[int]) -> int:
    """So many steps, side by side."""
    step = ctx.step
    return len(await step.gather(*(lambda number=n: step.run("echo", echo, number) for n in range(ctx.input))))


@function("children")
async def children(ctx: Context[int]) -> int:
    """So many runs, side by side."""
    step = ctx.step
    return len(await step.gather(*(lambda number=n: step.invoke("leaf", leaf, number) for n in range(ctx.input))))


@function("nested")
async def nested(ctx: Context[int]) -> int:
    """A run in a run in a run."""
    return 0 if not ctx.input else 1 + await ctx.step.invoke("deeper", nested, ctx.input - 1)


@dataclass(frozen=True)
class Shape:
    """What is run, and how many steps it has in full."""

    function: Any
    size: int


SHAPES = {
    "5,000 steps in a row": Shape(row, 5000),
    "1,000 branches": Shape(branches, 1000),
    "1,000 children": Shape(children, 1000),
    "50 nested runs": Shape(nested, 50),
}
FUNCTIONS = [leaf, row, branches, children, nested]


async def seconds(opened: Callable[[], Any], shape: Shape, size: int) -> float:
    """How long a run took, in seconds a step."""
    async with opened() as backend:
        began = time.perf_counter()
        assert await backend.invoke(shape.function, size) == size
        return (time.perf_counter() - began) / size


@asynccontextmanager
async def on_sqlite() -> AsyncIterator[Backend]:
    with tempfile.TemporaryDirectory() as directory:
        async with SQLiteBackend(Path(directory) / "runs.db", FUNCTIONS) as backend:
            yield backend


@asynccontextmanager
async def on_inngest() -> AsyncIterator[Backend]:
    engine = InngestEngine()
    async with InngestBackend(engine.client(), FUNCTIONS, serve=engine.serve, now=engine.now) as backend:
        yield backend


@asynccontextmanager
async def on_temporal() -> AsyncIterator[Backend]:
    server = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sysconfig.get_path("scripts")) / "temporal"), dev_server_log_level="error"
    )
    async with server, TemporalBackend(server.client, task_queue=new_id(), functions=FUNCTIONS) as backend:
        yield backend


ENGINES: dict[str, Callable[[], Any]] = {
    "memory": lambda: MemoryBackend(FUNCTIONS),
    "sqlite": on_sqlite,
    "inngest": on_inngest,
    "temporal": on_temporal,
}


async def measure(engine: str, shape: Shape, rounds: int) -> tuple[float, float]:
    """Seconds a step at a tenth of the size, and in full: the best of some rounds."""
    small, large = [], []
    for _ in range(rounds):
        small.append(await seconds(ENGINES[engine], shape, max(5, shape.size // 10)))
        large.append(await seconds(ENGINES[engine], shape, shape.size))
    return min(small), min(large)


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks.fan_out", description=__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--engine", choices=list(ENGINES), action="append")
    options.add_argument("--shape", choices=list(SHAPES), action="append")
    given = options.parse_args()
    kept = True
    print(f"{'what':<24}{'engine':<10}{'a tenth':>12}{'in full':>12}{'ratio':>8}")
    for name in given.shape or SHAPES:
        for engine in given.engine or ["memory", "sqlite"]:
            try:
                small, large = asyncio.run(measure(engine, SHAPES[name], given.rounds))
            except InvokeError as error:
                if error.error_type != "TooManyStepsError":
                    raise
                print(f"{name:<24}{engine:<10}refused: {error}", flush=True)
                continue
            kept = kept and large <= LIMIT * small
            figures = f"{small * 1e6:>9,.0f} us{large * 1e6:>9,.0f} us{large / small:>8.2f}"
            print(f"{name:<24}{engine:<10}{figures}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
