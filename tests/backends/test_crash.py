"""What a probe that crashes does to the engine: it is dead at once, in every branch."""

from __future__ import annotations

import asyncio

import pytest

from durably.backends import MemoryBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, InvokeError, NonDeterminismError, current_step, function
from durably.core.errors import Signal
from durably.core.steps import Point

pytestmark = pytest.mark.asyncio


class Died(Signal):
    pass


async def test_a_crash_in_one_branch_ends_the_others_at_once() -> None:
    done: list[str] = []

    async def slow(name: str) -> str:
        for _ in range(3 if name == "left" else 30):
            await asyncio.sleep(0)
        done.append(name)
        return name

    @function("branches")
    async def branches(ctx: Context[None]) -> None:
        await ctx.step.gather(
            lambda: ctx.step.run("left", slow, "left"),
            lambda: ctx.step.run("right", slow, "right"),
        )

    def probe(point: Point) -> None:
        if point.name == "after_effect":
            raise Died

    backend = MemoryBackend([branches])
    backend.probe = probe
    with pytest.raises(Died):
        async with backend:
            await backend.invoke(branches, run_id="r")
    assert len(done) == 1
    assert [record.key for record in backend.journal.records("r")] == [""]


async def test_a_mismatch_inside_a_gather_is_told_as_such() -> None:
    names = ["first"]

    @function("branches", retries=2)
    async def branches(ctx: Context[None]) -> None:
        name = names[0]
        await ctx.step.gather(lambda: ctx.step.run(name, str.upper, "a"))
        await ctx.step.wait_for_event("go", "go")

    first = MemoryBackend([branches])
    async with first:
        await first.start(branches, run_id="r")
        await first.drain()
    names[0] = "second"
    async with MemoryBackend([branches], journal=first.journal) as second:
        with pytest.raises(InvokeError, match="recorded step 'gather\\[0\\]/first'") as caught:
            await (await second.run("r")).result()
    assert caught.value.error_type == NonDeterminismError.__name__


async def test_a_probe_sees_the_step_that_the_body_sees() -> None:
    seen: list[tuple[str, str, int]] = []

    @function("one")
    async def one(ctx: Context[None]) -> str:
        return await ctx.step.run("step", lambda: current_step().idempotency_key)

    def probe(point: Point) -> None:
        if point.name in ("before_body", "after_effect"):
            seen.append((point.name, current_step().idempotency_key, current_step().attempt))

    backend = MemoryBackend([one])
    backend.probe = probe
    async with backend:
        key = await backend.invoke(one)
    assert seen == [("before_body", key, 1), ("after_effect", key, 1)]


class Told(MemoryJournal):
    """Notes with what the changes that wait are refused."""

    refused: BaseException | None = None

    def abandon(self, error: BaseException) -> None:
        self.refused = error
        super().abandon(error)


async def test_a_worker_that_dies_leaves_nothing_that_goes_on() -> None:
    """Neither changes that wait to be written, nor waits of runs that left memory."""

    @function("sleeps")
    async def sleeps(ctx: Context[None]) -> None:
        await ctx.step.sleep("long", 3600)

    @function("dies")
    async def dies(ctx: Context[None]) -> None:
        await ctx.step.run("last", str.upper, "a")

    def probe(point: Point) -> None:
        if point.key == "last":
            raise Died

    clock, journal = VirtualClock(), Told()
    backend = MemoryBackend([sleeps, dies], journal=journal, clock=clock, max_resting=0)
    backend.probe = probe
    async with backend:
        await backend.start(sleeps, run_id="sleeps")
        while backend.live_runs or not any(record.due for record in journal.records("sleeps")):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert clock.armed == 1, "it sleeps, and has left memory"
        with pytest.raises(Died):
            await backend.invoke(dies)
        assert clock.armed == 0
    assert isinstance(journal.refused, Died)
