"""Forgetting beside live runs, and a crash right behind it, at every point of a run: it ends as if neither had been."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, Event, Function, function
from durably.core.errors import Signal
from durably.core.steps import Point

Open = Callable[[list[Function[Any, Any]], VirtualClock], ReplayBackend]

ENDED = 4
"""Runs that have ended before, and are forgotten."""


class Gone(Signal):
    """The process is gone."""


class Program:
    """A run that needs others which have ended: its children, and who told it something."""

    def __init__(self) -> None:
        self.clock = VirtualClock(1767225600.0)
        self.bodies: Counter[tuple[str, str]] = Counter()

        async def note(run_id: str, what: str) -> str:
            self.bodies[run_id, what] += 1
            return what

        @function("ended")
        async def ended(ctx: Context[int]) -> str:
            return await ctx.step.run("work", note, ctx.run_id, "work")

        @function("child")
        async def child(ctx: Context[str]) -> str:
            return await ctx.step.run("work", note, ctx.run_id, ctx.input)

        @function("teller", triggers=["asked"])
        async def teller(ctx: Context[None]) -> None:
            await ctx.step.send_event("tell", Event("told", "yes"))

        @function("main")
        async def main(ctx: Context[None]) -> list[Any]:
            step = ctx.step
            both = await step.gather(lambda: step.invoke("a", child, "a"), lambda: step.invoke("b", child, "b"))
            told, _ = await step.gather(
                lambda: step.wait_for_event("wait", "told"), lambda: step.send_event("ask", Event("asked"))
            )
            await step.sleep("nap", 10)
            return [*both, told and told.data, await step.run("last", note, ctx.run_id, "last")]

        self.ended, self.main = ended, main
        self.functions: list[Function[Any, Any]] = [main, ended, child, teller]

    async def before(self, make: Open) -> None:
        """What has ended before the run begins."""
        async with make(self.functions, self.clock) as backend:
            for number in range(ENDED):
                await backend.invoke(self.ended, number, run_id=f"ended-{number}")

    async def live(self, make: Open, crash_at: int) -> bool:
        """One life of the process; whether it ended at a point, right after all had been forgotten that may be."""
        passed = 0

        async def probe(point: Point) -> None:
            nonlocal passed
            passed += 1
            if passed == crash_at:
                self.clock.shift(7)  # a while after the end of a run it is spared, since somebody may ask for it
                await backend.prune(older_than=0)
                raise Gone

        backend = make(self.functions, self.clock)
        backend.probe = probe
        try:
            async with backend:
                run = await backend.start(self.main, run_id="main")
                assert await run.result() == ["a", "b", "yes", "last"]
                left = {each.id for each in await backend.runs(limit=1000)}
                assert crash_at or not left & {f"ended-{number}" for number in range(ENDED)}
                assert [record.key for record in (await run.history()).steps()][-1] == "last"
        except Gone:
            return True
        return False


def sqlite(directory: Path) -> Open:
    return lambda served, clock: SQLiteBackend(directory / "runs.db", served, clock=clock)


def memory(directory: Path) -> Open:
    journal = MemoryJournal()
    return lambda served, clock: MemoryBackend(served, journal=journal, clock=clock)


@pytest.mark.parametrize(("engine", "stride"), [(memory, 1), (sqlite, 5)], ids=["memory", "sqlite"])
def test_a_run_ends_as_it_should(engine: Callable[[Path], Open], stride: int, tmp_path: Path) -> None:
    point, crashed = 1, True
    while crashed:
        directory = tmp_path / str(point)
        directory.mkdir()
        program, make = Program(), engine(directory)
        asyncio.run(program.before(make))
        crashed = asyncio.run(program.live(make, point))
        if crashed:
            assert not asyncio.run(program.live(make, 0))
        again = program.bodies - Counter(dict.fromkeys(program.bodies, 1))
        assert again.total() <= 2, f"what was cut off at point {point} runs again, and nothing else"
        assert len(program.bodies) == ENDED + 3, "no child was started twice"
        point += stride
    assert point > 25, "there were not as many points as the program has"
