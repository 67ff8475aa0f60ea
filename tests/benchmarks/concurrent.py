"""``python -m tests.benchmarks.concurrent``: many runs at a time on one SQLite file, beside one commit a step.

Both sides are the same backend on the same disk, in turn: ours lets the commits of concurrent runs share one fsync, the
other makes each change in a transaction of its own. With ``--fsync-ms 2`` each commit takes that much longer, as on a
disk that is slower. Beside the throughput it says for how long the event loop was held: how late a task was woken that
asked to be woken every millisecond. Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.backends.replay.sqlite_file import SQLiteFile
from durably.core import Context, function

RUNS, STEPS, ROUNDS = 100, 20, 5
LEAST = 3.0
"""How many times the throughput of one commit a step there is to be."""


async def echo(number: int) -> int:
    return number


@function("busy")
async def busy(ctx: Context[int]) -> int:
    for number in range(ctx.input):
        await ctx.step.run("echo", echo, number)
    return ctx.input


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one round came to.

    Attributes:
        steps: Steps a second.
        held: The longest time for which the event loop was held, in seconds.
        usual: The time for which it was held in 99 of 100 cases.
    """

    steps: float
    held: float
    usual: float


class Pulse:
    """A task that asks to be woken every millisecond, and notes how late it is."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def beat(self) -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            self.late.append(time.perf_counter() - due)


def slow_down(file: SQLiteFile, seconds: float) -> None:
    """Let each commit of a file take that much longer."""
    commit = file.commit

    def slowly() -> None:
        commit()
        time.sleep(seconds)

    file.commit = slowly  # type: ignore[method-assign]


async def measure(path: Path, *, shared: bool, fsync: float, runs: int, steps: int) -> Figures:
    """Drive so many runs at a time."""
    backend = SQLiteBackend(path, [busy])
    if fsync:
        slow_down(backend.journal.file, fsync)
    if not shared:
        backend.journal.groups.largest = 1
    async with backend:
        pulse = Pulse()
        began = time.perf_counter()
        beat = asyncio.create_task(pulse.beat())
        started = [await backend.start(busy, steps) for _ in range(runs)]
        await asyncio.gather(*(each.result() for each in started))
        took = time.perf_counter() - began
        beat.cancel()
    late = sorted(pulse.late)
    return Figures(steps=runs * steps / took, held=late[-1], usual=late[len(late) * 99 // 100])


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks.concurrent", description=__doc__)
    options.add_argument("--fsync-ms", type=float, default=0.0, help="how much longer each commit takes")
    options.add_argument("--runs", type=int, default=RUNS)
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    given = options.parse_args()
    found: dict[bool, list[Figures]] = {True: [], False: []}
    for _ in range(given.rounds):
        for shared in (False, True):
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "runs.db"
                fsync = given.fsync_ms / 1e3
                figures = asyncio.run(measure(path, shared=shared, fsync=fsync, runs=given.runs, steps=given.steps))
                found[shared].append(figures)
    for shared, name in ((False, "one commit a step"), (True, "shared commits")):
        middle = statistics.median(each.steps for each in found[shared])
        held = statistics.median(each.held for each in found[shared]) * 1e3
        usual = statistics.median(each.usual for each in found[shared]) * 1e3
        print(f"{name:<20}{middle:>10,.0f} steps/s   loop held {usual:.1f} ms (99 %), {held:.1f} ms (most)")
    ratio = statistics.median(ours.steps / other.steps for ours, other in zip(found[True], found[False], strict=True))
    print(f"ratio {ratio:.1f}, at least {LEAST:g}")
    return 0 if ratio >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
