"""Crashes at every point while rules hold runs back: each run begins once, in its order, and at its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, Event, Function, RunStatus, Singleton, function
from durably.core.flow import Batch, Concurrency, Cron, CronTick, Debounce, Throttle
from tests.killed_at import Killed, KilledAt

BEGAN = 1767225600.0

Open = Callable[[list[Function[Any, Any]], VirtualClock], ReplayBackend]


class Program:
    """Functions under every kind of rule, and what their runs left behind."""

    def __init__(self) -> None:
        self.clock = VirtualClock(BEGAN)
        self.said: dict[str, list[tuple[str, Any]]] = {}

        async def say(rule: str, what: str, data: Any) -> None:
            if (what, data) not in self.said.setdefault(rule, []):  # what was cut off before its commit runs again
                self.said[rule].append((what, data))

        @function("line", triggers=["came"], singleton=Singleton("key", mode="queue"))
        async def line(ctx: Context[dict[str, int]]) -> None:
            await ctx.step.run("begin", say, "line", "begin", ctx.input["n"])
            await ctx.step.sleep("nap", 3)
            await ctx.step.run("end", say, "line", "end", ctx.input["n"])

        @function("quiet", triggers=["came"], debounce=Debounce(period=10))
        async def quiet(ctx: Context[dict[str, int]]) -> None:
            await ctx.step.run("say", say, "quiet", "run", ctx.input["n"])

        @function("paced", triggers=["came"], throttle=Throttle(limit=1, period=4))
        async def paced(ctx: Context[dict[str, int]]) -> None:
            await ctx.step.run("say", say, "paced", "run", ctx.input["n"])

        @function("batched", triggers=["came"], batch=Batch(max_size=2, timeout=5))
        async def batched(ctx: Context[list[dict[str, int]]]) -> None:
            await ctx.step.run("say", say, "batched", "run", [each["n"] for each in ctx.input])

        @function("narrow", triggers=["came"], concurrency=Concurrency(limit=1))
        async def narrow(ctx: Context[dict[str, int]]) -> None:
            await ctx.step.run("say", say, "narrow", "run", ctx.input["n"])

        @function("ticking", cron=Cron("* * * * *", missed="each"))
        async def ticking(ctx: Context[CronTick]) -> None:
            await ctx.step.run("say", say, "ticking", "run", ctx.input.at.timestamp() - BEGAN)

        @function("until")
        async def until(ctx: Context[float]) -> None:
            await ctx.step.sleep_until("moment", BEGAN + ctx.input)

        self.functions: list[Function[Any, Any]] = [line, quiet, paced, batched, narrow, ticking, until]
        self.until = until

    async def live(self, make: Open, crash_at: int) -> bool:
        """One life of the process: whether it crashed. It sends its events again each time, under the same ids."""
        backend = make(self.functions, self.clock)
        backend.probe = KilledAt(crash_at)
        try:
            async with backend:
                for n in range(3):
                    await backend.send(Event("came", {"key": 1, "n": n}, id=f"event-{n}"))
                await backend.invoke(self.until, 130.0, run_id="until")
                assert {run.status for run in await backend.runs(limit=1000)} <= {
                    RunStatus.COMPLETED,
                    RunStatus.SKIPPED,
                }
                store = backend.journal.flow
                assert store is not None
                assert [*store.all("held"), *store.all("slot"), *store.all("batch"), *store.all("batched")] == []
        except Killed:
            return True
        return False


CALM = {
    "line": [(what, n) for n in range(3) for what in ("begin", "end")],
    "quiet": [("run", 2)],
    "paced": [("run", n) for n in range(3)],
    "batched": [("run", [0, 1]), ("run", [2])],
    "narrow": [("run", n) for n in range(3)],
    "ticking": [("run", 60.0), ("run", 120.0)],
}


def sqlite(directory: Path) -> Open:
    return lambda served, clock: SQLiteBackend(directory / "runs.db", served, clock=clock)


def memory(directory: Path) -> Open:
    journal = MemoryJournal()
    return lambda served, clock: MemoryBackend(served, journal=journal, clock=clock)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("engine", "stride"), [(memory, 1), (sqlite, 3)], ids=["memory", "sqlite"])
def test_a_crash_at_any_point_changes_nothing(engine: Callable[[Path], Open], stride: int, tmp_path: Path) -> None:
    point, crashed = 1, True
    while crashed:
        directory = tmp_path / str(point)
        directory.mkdir()
        program, make = Program(), engine(directory)
        crashed = asyncio.run(program.live(make, point))
        if crashed:
            assert not asyncio.run(program.live(make, 0))
        assert {rule: _in_order(rule, said) for rule, said in program.said.items()} == CALM, f"crashed at point {point}"
        point += stride
    assert point > 60, "there were not as many points as the program has"


def _in_order(rule: str, said: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """What was said, in the order in which it was, where the rule says anything about that."""
    return sorted(said, key=str) if rule in ("narrow", "paced") else said
