"""``python -m tests.benchmarks.backlog``: more work than a worker can do at once, on one SQLite file.

A client starts runs, and sends events that start others, before a worker with a limit is up. The worker runs all of
them: what one takes must not grow. The file is listed and counted before and after that, and pruned at the end. Time
is CPU time of the process. Exits with 1 if a run of the last tenth took more than `LIMIT` times as long as one of the
first.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.core import Context, Event, RunStatus, current_step, function
from tests.benchmarks.events import memory
from tests.benchmarks.loop_watch import loop_watch

LIMIT = 2.0
WAVES = 10
MAX_RUNS = 50
AT_ONCE = 200
"""How many events are sent in one call."""


done: Counter[str] = Counter()


async def work() -> None:
    done[current_step().run_id] += 1


@function("job")
async def job(ctx: Context[int]) -> None:
    await ctx.step.run("work", work)
    await ctx.step.sleep("pause", 0.001)
    await ctx.step.run("more", work)


@function("listener", triggers=["said"])
async def listener(ctx: Context[int]) -> None:
    await ctx.step.run("work", work)


async def waves(what: str, ended: Callable[[], int], count: int) -> bool:
    """Wait until all have ended; whether the last tenth took no more than it may, beside the first."""
    taken = []
    with loop_watch() as watch:
        for number in range(1, WAVES + 1):
            began, before = time.process_time(), ended()
            while ended() < count * number // WAVES:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            taken.append((time.process_time() - began) / max(1, ended() - before))
    print(
        f"{what:<10}{taken[0] * 1e3:>8.2f} ms of CPU each in the first tenth, {taken[-1] * 1e3:.2f} in the last; "
        f"{memory():.0f} MB; {watch}",
        flush=True,
    )
    return taken[-1] <= LIMIT * taken[0]


async def queued(client: ReplayBackend, runs: int, events: int) -> None:
    """Start runs and send events, while no worker is up."""
    began = time.process_time()
    with loop_watch() as watch:
        for number in range(runs):
            await client.start("job", number, run_id=f"job-{number}")
    print(f"{'starting':<10}{(time.process_time() - began) / runs * 1e3:>8.2f} ms of CPU each; {watch}", flush=True)
    began = time.process_time()
    with loop_watch() as watch:
        for first in range(0, events, AT_ONCE):
            await client.send(*[Event("said", number) for number in range(first, min(events, first + AT_ONCE))])
    print(f"{'sending':<10}{(time.process_time() - began) / events * 1e3:>8.2f} ms of CPU each; {watch}", flush=True)


async def timed(what: str, act: Callable[[], Awaitable[object]]) -> None:
    """Print what one call takes."""
    with loop_watch() as watch:
        began = time.process_time()
        found = await act()
        print(f"{what:<34}{(time.process_time() - began) * 1e3:>9.1f} ms of CPU: {found}; {watch}", flush=True)


async def looked_at(backend: ReplayBackend) -> None:
    """List and count."""

    async def pages() -> int:
        number, page = 0, await backend.runs(limit=100)
        while page.next is not None:
            number, page = number + 1, await backend.runs(limit=100, after=page.next)
        return number

    await timed("all pages", pages)
    await timed("a page of those that wait", lambda: _count(backend.runs(status=RunStatus.WAITING)))
    await timed("counts", backend.count_runs)
    await timed("counts of one function", lambda: backend.count_runs(function="job"))
    await timed("approvals", backend.approvals)
    await timed("workers", lambda: _count(backend.workers()))


async def _count(found: Awaitable[object]) -> int:
    return len(list(await found))  # type: ignore[call-overload]


async def measure(path: Path, given: argparse.Namespace) -> bool:
    """Print the table; whether the limit was kept."""
    functions, runs, events = [job, listener], given.runs, given.events
    async with SQLiteBackend(path, functions):
        pass  # whose functions these are is known from then on
    async with SQLiteBackend(path) as client:
        await queued(client, runs, events)
        await looked_at(client)
    async with SQLiteBackend(path, functions, max_runs=MAX_RUNS) as backend:
        kept = await waves("running", lambda: len(done), runs + events)
        await backend.drain()
        assert done == {
            **{f"job-{number}": 2 for number in range(runs)},
            **{each: 1 for each in done if "job" not in each},
        }
        await looked_at(backend)
        await timed("prune", lambda: backend.prune(keep=100))
    return kept


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks.backlog", description=__doc__)
    options.add_argument("--runs", type=int, default=20_000)
    options.add_argument("--events", type=int, default=10_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        return 0 if asyncio.run(measure(Path(directory) / "runs.db", given)) else 1


if __name__ == "__main__":
    sys.exit(main())
