"""The deterministic replayer: time that jumps, order that a seed fixes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from durably.backends import MemoryBackend, MemoryJournal
from durably.core import Context, DefinitionError, Event, InvokeError, current_step, function
from durably.core.errors import JournalError
from durably.core.history import StepRecord

pytestmark = pytest.mark.asyncio

DAY = 86_400.0


async def test_a_day_of_a_hundred_sleeping_agents_takes_no_time() -> None:
    @function("sleeper")
    async def sleeper(ctx: Context[int]) -> int:
        for hour in range(24):
            await ctx.step.sleep("hour", 3600 + ctx.input * hour)
        return ctx.input

    async with MemoryBackend([sleeper]) as backend:
        began = backend.clock.now()
        runs = [await backend.start(sleeper, number) for number in range(100)]
        assert [await run.result() for run in runs] == list(range(100))
        assert backend.clock.now() - began == DAY + 99 * sum(range(24))


async def test_time_stands_still_until_somebody_waits() -> None:
    @function("waiter")
    async def waiter(ctx: Context[None]) -> Any:
        event = await ctx.step.wait_for_event("w", "go", timeout=60)
        return event and event.data

    async with MemoryBackend([waiter]) as backend:
        run = await backend.start(waiter)
        await asyncio.sleep(0.01)  # nobody waits for a result, so the timeout does not come
        await backend.send(Event("go", "in time"))
        assert await run.result() == "in time"
        late = await backend.start(waiter)
        assert await late.result() is None


async def order_of(seed: int) -> list[str]:
    seen: list[str] = []

    async def look(name: str) -> None:
        seen.append(name)

    @function("f")
    async def spread(ctx: Context[None]) -> None:
        async def branch(name: str) -> None:
            for number in range(3):
                await ctx.step.run("look", look, f"{name}{number}")

        await ctx.step.gather(lambda: branch("a"), lambda: branch("b"), lambda: branch("c"))

    async with MemoryBackend([spread], seed=seed) as backend:
        await backend.invoke(spread, run_id="r")
    return seen


async def test_a_seed_fixes_the_order_and_seeds_differ() -> None:
    orders = [tuple(await order_of(seed)) for seed in range(20)]
    assert orders == [tuple(await order_of(seed)) for seed in range(20)]
    assert len(set(orders)) > 5
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(orders[0]))}


async def test_scheduled_events_are_delivered_in_their_time_and_drain_waits_for_them() -> None:
    seen: list[tuple[str, float]] = []

    @function("listener", triggers=["remind"])
    async def listener(ctx: Context[str]) -> None:
        async def note() -> None:
            seen.append((ctx.input, backend.clock.now() - began))

        await ctx.step.run("note", note)

    async with MemoryBackend([listener]) as backend:
        began = backend.clock.now()
        await backend.send(Event("remind", "later", ts=began + DAY), Event("remind", "soon", ts=began + 60))
        await backend.send(Event("remind", "now"))
        await backend.drain()
    assert seen == [("now", 0), ("soon", 60), ("later", DAY)]


class Broken(MemoryJournal):
    """Refuses the next writes of step records."""

    refusals = 0

    def append(self, record: StepRecord, fence: int) -> None:
        if self.refusals and record.key:
            self.refusals -= 1
            raise JournalError("no space left on device")
        super().append(record, fence)


@pytest.mark.parametrize(("refusals", "starts"), [(3, [1]), (30, [1])])
async def test_a_full_disk_is_waited_for(refusals: int, starts: list[int], caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    async def work() -> str:
        seen.append(current_step().attempt)
        return "done"

    @function("f")
    async def run_work(ctx: Context[None]) -> str:
        return await ctx.step.run("work", work)

    journal = Broken()
    async with MemoryBackend([run_work], journal=journal) as backend:
        journal.refusals = refusals
        with caplog.at_level(logging.WARNING, "durably"):
            assert await backend.invoke(run_work) == "done"
    assert seen == starts
    assert caplog.text.count("no space left") == 1


async def test_a_function_nobody_serves_is_refused_where_it_is_invoked() -> None:
    @function("child")
    async def child(ctx: Context[None]) -> None: ...

    @function("parent")
    async def parent(ctx: Context[None]) -> None:
        await ctx.step.invoke("c", child)

    async with MemoryBackend([parent]) as backend:
        with pytest.raises(InvokeError, match="add it to functions="):
            await backend.invoke(parent)
        with pytest.raises(DefinitionError, match="is not served by this backend"):
            await backend.start(child)


async def test_a_backend_is_used_inside_async_with() -> None:
    @function("any")
    async def any_function(ctx: Context[None]) -> None:
        pass

    backend = MemoryBackend([any_function])
    calls: list[Coroutine[Any, Any, Any]] = [
        backend.send(Event("e")),
        backend.received(Event("e")),
        backend.start(any_function),
        backend.run("r"),
        backend.runs(),
        backend.count_runs(),
        backend.prune(),
        backend.workers(),
        backend.drain(),
    ]
    for each in calls:
        with pytest.raises(RuntimeError, match="inside 'async with backend:'"):
            await each
    async with backend:
        with pytest.raises(RuntimeError, match="already running"):
            await backend.__aenter__()
