"""Clocks that are set, and crashes while a run sleeps or backs off: timers ring once, never early."""

from __future__ import annotations

import asyncio

import pytest

from durably.backends import MemoryBackend
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.scheduler import RunScheduler, Scheduler
from durably.core import Context, RetryPolicy, RunStatus, function
from durably.core.errors import CancelSignal, SuspendSignal
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill

pytestmark = pytest.mark.asyncio

HOUR = 3600.0

times: list[float] = []
clock = VirtualClock()


async def _note() -> None:
    times.append(clock.now())


async def _fail_twice() -> None:
    times.append(clock.now())
    if len(times) < 3:
        raise ConnectionError("down")


@function("sleeper")
async def sleeper(ctx: Context[None]) -> None:
    await ctx.step.run("begin", _note)
    await ctx.step.sleep("hour", HOUR)
    await ctx.step.run("end", _note)


@function("patient", retry_policy=RetryPolicy(initial=HOUR, factor=1, maximum=HOUR, jitter=0))
async def patient(ctx: Context[None]) -> None:
    await ctx.step.run("work", _fail_twice)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global clock
    times.clear()
    clock = VirtualClock()


@pytest.mark.parametrize("shift", [-10 * HOUR, -1.0, 1.0, HOUR / 2, 10 * HOUR])
@pytest.mark.parametrize("target", [sleeper, patient], ids=["sleep", "back-off"])
async def test_a_clock_that_is_set_does_not_lose_or_repeat_a_timer(target: object, shift: float) -> None:
    """A moment is a moment: a clock set back makes a sleep longer by as much, one set forward ends it."""
    moved = False

    def move(point: Point) -> None:
        nonlocal moved
        if not moved and point.name in ("registered", "backing_off"):
            moved = True
            clock.shift(shift)

    async with MemoryBackend([sleeper, patient], clock=clock) as backend:
        backend.probe = move
        await backend.invoke(target)  # type: ignore[call-overload]
    assert moved
    start = times[0]
    assert times[1] >= start + HOUR, "never early"
    if target is sleeper:
        assert times[1] == max(start + HOUR, start + shift)
        assert len(times) == 2
    else:
        assert times[1] == max(start + HOUR, start + shift)
        assert times[2] == times[1] + HOUR
        assert len(times) == 3


@pytest.mark.parametrize(("target", "point"), [(sleeper, "registered"), (patient, "backing_off")])
async def test_a_crash_during_a_sleep_or_a_back_off_does_not_restart_it(target: object, point: str) -> None:
    global clock
    start = clock.now()

    place = point

    def die(passed: Point) -> None:
        if passed.name == place:
            raise Kill

    backend = MemoryBackend([sleeper, patient], clock=clock)
    for place in (point, "before_first", "before_first"):  # noqa: B007  # the probe looks at it
        async with backend:
            backend.probe = die
            with pytest.raises(Kill):
                await backend.invoke(target, run_id="r")  # type: ignore[call-overload]
        clock = VirtualClock(clock.now() + HOUR / 6)  # ten minutes of outage
        backend = MemoryBackend([sleeper, patient], journal=backend.journal, clock=clock)
    async with backend:
        await backend.invoke(target, run_id="r")  # type: ignore[call-overload]
    assert times[1] == start + HOUR, "the outage is a part of the wait"
    assert len(times) == (2 if target is sleeper else 3)


@pytest.mark.parametrize("waits", [False, True])
async def test_quiet_comes_although_a_cron_has_no_end(waits: bool) -> None:
    ticks: list[float] = []

    @function("daily", cron="0 12 * * *")
    async def daily(ctx: Context[None]) -> None:
        ticks.append(1)

    @function("nap")
    async def nap(ctx: Context[None]) -> None:
        await ctx.step.sleep("long", 37 * HOUR)

    async with MemoryBackend([daily, nap]) as backend:
        run = await backend.start(nap)
        ended = asyncio.ensure_future(run.result()) if waits else None
        await asyncio.wait_for(backend.drain(), 20)
        if ended is not None:
            await ended
        assert (await run.refresh()).status is RunStatus.COMPLETED
        assert len(ticks) == 2


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("quiet", [True, False], ids=["drain", "result"])
async def test_who_no_longer_waits_holds_nobody_up(quiet: bool, turns: int) -> None:
    @function("naps")
    async def naps(ctx: Context[None]) -> str:
        await ctx.step.sleep("nap", 60)
        return "rested"

    @function("ends")
    async def ends(ctx: Context[None]) -> None: ...

    async with MemoryBackend([naps, ends]) as backend:
        other = await backend.start(ends)
        waiting: asyncio.Task[object] = asyncio.ensure_future(backend.drain() if quiet else other.result())
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        assert await asyncio.wait_for(backend.invoke(naps), 20) == "rested"


@pytest.mark.asyncio
async def test_who_has_waited_in_vain_does_not_count() -> None:
    """Else a virtual clock stands still for good, or jumps while a run is active."""
    scheduler = Scheduler(VirtualClock())
    for seconds in (0.0, 0.001):
        await scheduler.watch_for("nobody", seconds)
        assert scheduler.active == 0


async def test_a_cancelled_run_is_not_taken_for_one_that_is_suspended() -> None:
    run = RunScheduler(Scheduler(VirtualClock()))
    run.interrupt(SuspendSignal)
    run.interrupt(CancelSignal)
    run.interrupt(SuspendSignal)  # by the stop of its worker
    assert run.signal is CancelSignal
