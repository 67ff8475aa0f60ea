"""``python -m tests.benchmarks.prune``: what live runs notice while a hundred thousand finished ones are forgotten.

Runs are started at a steady rate on one worker, three times: alone, while the worker itself prunes, and while another
process does. Exits with 1 if a run is held up for longer than the limit beyond what it is without.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.backends.replay.journal_types import RunRow
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import Context, Pruned, RunStatus, function
from durably.core.history import StepRecord

FINISHED, KEPT, RATE, ALONE_SECONDS = 100_000, 1_000, 50, 20.0
STEPS, TEXT = 3, "x" * 200
"""Of a finished run: the number of its last record, and what each of those before it holds."""

AGE_SECONDS = 3600.0
AT_ONCE = 5_000
LIMIT_SECONDS = 0.1


async def look_up(n: int) -> int:
    return n


@function("live")
async def live(ctx: Context[int]) -> int:
    await ctx.step.run("first", look_up, ctx.input)
    return await ctx.step.run("second", look_up, ctx.input)


def fill(path: Path, runs: int) -> None:
    """Write so many finished runs."""
    journal = SQLiteJournal(path)
    journal.open()
    now = time.time() - AGE_SECONDS
    for first in range(0, runs, AT_ONCE):
        with journal.transaction():
            for n in range(first, min(first + AT_ONCE, runs)):
                _write_run(journal, f"old-{n}", now)
    journal.close()


def _write_run(journal: SQLiteJournal, run_id: str, now: float) -> None:
    status = RunStatus.RUNNING
    journal.insert(
        RunRow(
            id=run_id,
            function="old",
            status=status,
            parent=None,
            singleton=None,
            owner=None,
            fence=1,
            crashes=(),
            created_at=now,
        )
    )
    journal.append(StepRecord(run_id, 0, "", "run", "started", name="old", output="{}", at=now), 1)
    for n in range(1, STEPS):
        journal.append(StepRecord(run_id, n, f"work:{n}", "step", "completed", output=f'"{TEXT}"', at=now), 1)
    journal.append(StepRecord(run_id, STEPS, "", "run", "completed", name="old", output="null", at=now), 1)
    journal.set_status(run_id, RunStatus.COMPLETED, now)


Beside = Callable[[SQLiteBackend], Awaitable[int]]
"""What goes on beside the live runs; gives how many runs were forgotten."""


@dataclass
class Figures:
    """What the live runs took, in seconds; what was forgotten beside them, and in which time."""

    latencies: list[float]
    gone: int
    seconds: float


async def measure(path: Path, beside: Beside) -> Figures:
    """Start runs at the rate for as long as something goes on beside them."""
    latencies: list[float] = []
    async with SQLiteBackend(path, [live]) as backend:

        async def one(n: int) -> None:
            began = time.perf_counter()
            await backend.invoke(live, n)
            latencies.append(time.perf_counter() - began)

        async with asyncio.TaskGroup() as runs:
            began = time.perf_counter()
            other = asyncio.ensure_future(beside(backend))
            n = 0
            while not other.done():
                runs.create_task(one(n))
                n += 1
                await asyncio.sleep(max(0.0, began + n / RATE - time.perf_counter()))
            seconds = time.perf_counter() - began
        return Figures(latencies, await other, seconds)


async def _nothing(seconds: float, _: SQLiteBackend) -> int:
    await asyncio.sleep(seconds)
    return 0


async def _prune(backend: SQLiteBackend) -> int:
    gone: Pruned = await backend.prune(keep=KEPT)
    return gone.runs


async def _prune_elsewhere(backend: SQLiteBackend) -> int:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return await asyncio.get_running_loop().run_in_executor(other, prune_file, backend.journal.path)


def prune_file(path: Path) -> int:
    """Prune from a process of its own."""

    async def prune() -> int:
        async with SQLiteBackend(path) as backend:
            return await _prune(backend)

    return asyncio.run(prune())


@contextmanager
def copies(runs: int) -> Iterator[Callable[[], Path]]:
    """Files with so many finished runs, each fresh."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "finished.db"
        fill(source, runs)
        yield lambda: Path(shutil.copy(source, Path(directory) / f"runs-{time.monotonic_ns()}.db"))


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks.prune", description=__doc__)
    options.add_argument("--finished", type=int, default=FINISHED)
    given = options.parse_args()
    found: dict[str, Figures] = {}
    with copies(given.finished) as copy:
        beside: dict[str, Beside] = {
            "alone": partial(_nothing, ALONE_SECONDS),
            "prunes": _prune,
            "another prunes": _prune_elsewhere,
        }
        for name, work in beside.items():
            found[name] = asyncio.run(measure(copy(), work))
    print(f"{'the worker':<16}{'live runs':>10}{'median':>8}{'99 %':>8}{'worst ms':>10}{'forgotten':>11}{'s':>7}")
    for name, each in found.items():
        middle, worst = statistics.median(each.latencies) * 1e3, max(each.latencies) * 1e3
        most = statistics.quantiles(each.latencies, n=100)[-1] * 1e3
        print(
            f"{name:<16}{len(each.latencies):>10}{middle:>8.1f}{most:>8.1f}{worst:>10.1f}"
            f"{each.gone:>11}{each.seconds:>7.1f}"
        )
    allowed = max(found["alone"].latencies) + LIMIT_SECONDS
    held_up = [name for name, each in found.items() if max(each.latencies) > allowed]
    print(*(f"{name}: a run was held up for more than {LIMIT_SECONDS * 1e3:g} ms" for name in held_up), sep="\n")
    return 1 if held_up else 0


if __name__ == "__main__":
    sys.exit(main())
