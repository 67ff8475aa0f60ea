"""What runs beside a body that kills its process is not blamed for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.crashes import CrashLog
from durably.backends.replay.lone_bodies import LoneBodies
from durably.backends.replay.scheduler import RunScheduler, Scheduler
from durably.core import Context, StepCrashedError, current_step, function
from durably.core.errors import SuspendSignal
from durably.testing.conformance.subject import Kill

LIVES = 30

began: list[str] = []
"""The steps whose bodies began, in order, of all lives."""

beside: list[set[str]] = []
"""What ran at each crash."""

running: set[str] = set()

limits: dict[str, int] = {}


async def _slow(turns: int) -> str:
    """Lets others run for so many turns of the loop."""
    key = current_step().key
    began.append(key)
    running.add(key)
    for _ in range(turns):
        await asyncio.sleep(0)
    running.discard(key)
    return "done"


async def _kill(turns: int) -> None:
    await _slow(turns)
    beside.append(running | {current_step().key})
    raise Kill


@function("mixed")
async def mixed(ctx: Context[list[list[int]]]) -> list[str]:
    """Branches of steps that take so many turns; a negative number kills the process after as many."""

    async def branch(number: int, steps: Sequence[int]) -> str:
        try:
            for place, turns in enumerate(steps):
                name = f"b{number}s{place}"
                body = _kill if turns < 0 else _slow
                await ctx.step.run(name, body, abs(turns), crash_limit=limits.get(name))
        except StepCrashedError as error:
            return f"{error.crashes} crashes"
        return "done"

    return list(await ctx.step.gather(*(partial(branch, *each) for each in enumerate(ctx.input))))


async def result_of(branches: list[list[int]], open_backend: Any) -> tuple[list[str], int]:
    """Open worker after worker until one survives: what the run came to, and how many did not."""
    for each in (began, beside):
        each.clear()
    for lives in range(LIVES):
        running.clear()
        async with open_backend() as backend:
            run = await backend.start(mixed, branches, run_id="mixed")
            try:
                return await run.result(), lives
            except Kill:
                continue
    raise AssertionError(f"no end after {LIVES} lives: {began}")


def opener(engine: str, tmp_path: Path) -> Any:
    clock, journal = VirtualClock(), MemoryJournal()
    if engine == "memory":
        return lambda: MemoryBackend([mixed], journal=journal, clock=clock)
    return lambda: SQLiteBackend(tmp_path / "runs.db", [mixed], clock=clock)


@pytest.mark.asyncio
@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize(
    "branches",
    [
        [[500], [-5]],
        [[-5], [500]],
        [[500], [300], [-5], [400]],
        [[500], [-400]],
        [[500, 500], [1, 1, -1]],
        [[900], [20, 20, 20, 20, 20, 20, 20, 20, -1]],
    ],
)
async def test_only_the_step_that_kills_the_process_fails(
    engine: str, branches: list[list[int]], tmp_path: Path
) -> None:
    limits.clear()
    result, lives = await result_of(branches, opener(engine, tmp_path))
    assert result == [f"{lives} crashes" if min(steps) < 0 else "done" for steps in branches]
    assert lives <= 6
    assert max(Counter(began).values()) <= lives, "none runs again for nothing"


@pytest.mark.asyncio
async def test_two_that_kill_it_are_both_found_and_lives_are_bounded(tmp_path: Path) -> None:
    limits.clear()
    (first, calm, second), lives = await result_of([[-5], [500], [-7]], opener("memory", tmp_path))
    assert calm == "done"
    assert (first, second) == ("6 crashes", "6 crashes")
    assert lives <= 12


@pytest.mark.asyncio
async def test_a_step_with_a_limit_of_one_runs_alone_after_its_first_crash(tmp_path: Path) -> None:
    limits.update(b0s0=1)
    result, _ = await result_of([[500], [-5]], opener("memory", tmp_path))
    assert result[0] == "done"


@pytest.mark.asyncio
async def test_two_crashes_are_shared_and_then_bodies_run_one_at_a_time(tmp_path: Path) -> None:
    limits.clear()
    await result_of([[500], [-5], [300]], opener("memory", tmp_path))
    everybody = {"gather[0]/b0s0", "gather[1]/b1s0", "gather[2]/b2s0"}
    assert beside[:2] == [everybody, everybody]
    assert beside[2:] == [{"gather[1]/b1s0"}] * (len(beside) - 2)


def test_a_crash_is_put_down_to_the_step_that_ran_alone() -> None:
    log = CrashLog().crashed(3, 1.0).crashed(3, 2.0).came(resting=False, alone="a").crashed(3, 3.0)
    assert log.in_window(0, "a") == [1.0, 2.0, 3.0]
    assert log.in_window(0, "b") == [1.0, 2.0]
    assert log.crashed(3, 4.0).in_window(0, "b") == [1.0, 2.0, 4.0], "of the next life nothing is known yet"
    assert log.forgiven().in_window(0, "a") == []


# -- who runs at the same time


class Watch:
    """What the bodies of a run tell of who runs alone."""

    alone = ""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def lone_body_ended(self) -> None:
        self.ended.append(self.alone)
        self.alone = ""


class Bodies:
    """Bodies of one run, each of which runs until it is told to end."""

    def __init__(self) -> None:
        scheduler = Scheduler(VirtualClock())
        scheduler.began(10)  # so many are active: the clock stands still
        self.run = RunScheduler(scheduler)
        self.watch = Watch()
        self.running: list[str] = []
        self._lone = LoneBodies(self.run, cast("Any", self.watch))
        self._ends: dict[str, asyncio.Future[None]] = {}

    async def begin(self, name: str, *, alone: bool = False) -> asyncio.Task[None]:
        """Let a body begin, if it may."""
        self._ends[name] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._body(name, alone))
        await self.settled()
        return task

    async def end(self, name: str, error: BaseException | None = None) -> None:
        """Let a body end."""
        end = self._ends[name]
        if error is None:
            end.set_result(None)
        else:
            end.set_exception(error)
        await self.settled()

    async def settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def _body(self, name: str, alone: bool) -> None:
        async with self._lone.place(name, alone=alone):
            self.running.append(name)
            try:
                await self._ends[name]
            finally:
                self.running.remove(name)


@pytest.mark.asyncio
async def test_bodies_run_beside_each_other_until_one_must_be_alone() -> None:
    bodies, rested = Bodies(), list[str]()
    bodies.run.rests = lambda: rested.append("rests")
    for name in ("a", "b"):
        await bodies.begin(name)
    assert bodies.running == ["a", "b"]
    await bodies.begin("lone", alone=True)
    await bodies.begin("late")
    assert bodies.running == ["a", "b"], "who comes later does not overtake one that waits to be alone"
    await bodies.end("a")
    assert (bodies.running, bodies.watch.alone) == (["b"], "")
    await bodies.end("b")
    assert (bodies.running, bodies.watch.alone) == (["lone"], "lone")
    await bodies.begin("later")
    assert bodies.running == ["lone"]
    await bodies.end("lone")
    assert (bodies.running, bodies.watch.alone) == (["late", "later"], "")
    assert bodies.watch.ended == ["lone"], "that is noted, and of no other"
    assert rested == [], "who waits for its turn keeps its run busy"


@pytest.mark.asyncio
async def test_nothing_is_noted_of_a_body_that_a_signal_cuts_off() -> None:
    bodies = Bodies()
    task = await bodies.begin("lone", alone=True)
    await bodies.end("lone", SuspendSignal())
    assert isinstance(task.exception(), SuspendSignal)
    assert (bodies.watch.ended, bodies.watch.alone) == ([], "")
    await bodies.begin("next", alone=True)
    assert bodies.running == ["next"]


@pytest.mark.asyncio
@pytest.mark.parametrize("handed_over", [False, True])
async def test_one_that_is_interrupted_while_it_waits_keeps_no_place(handed_over: bool) -> None:
    bodies = Bodies()
    await bodies.begin("first", alone=True)
    waiting = [await bodies.begin(name, alone=True) for name in ("second", "third")]
    if handed_over:  # at the moment at which it is interrupted
        bodies._ends["first"].set_result(None)
        await asyncio.sleep(0)
    bodies.run.interrupt(SuspendSignal)
    await bodies.settled()
    assert all(isinstance(task.exception(), SuspendSignal) for task in waiting)
    assert bodies.running == ([] if handed_over else ["first"])
    bodies.run.signal = None
    await bodies.begin("fourth", alone=True)
    assert bodies.running == (["fourth"] if handed_over else ["first"])
    if not handed_over:
        await bodies.end("first")
        assert bodies.running == ["fourth"]
