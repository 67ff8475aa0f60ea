"""C06 for workers that are told to stop: they take no new run, and what they leave goes on elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from durably.core import Context, function
from durably.testing.conformance.subject import Subject
from durably.testing.conformance.suite import clause


@clause
async def test_c06_a_worker_that_stops_takes_no_new_run(subject: Subject) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def slow() -> None:
        begun.set()
        await go_on.wait()

    async def late() -> str:
        ran.append("late")
        return "late"

    @function("drained")
    async def drained(ctx: Context[None]) -> None:
        await ctx.step.run("slow", slow)

    @function("latecomer")
    async def latecomer(ctx: Context[None]) -> str:
        return await ctx.step.run("late", late)

    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(subject.open([drained, latecomer]))
        backend.drain_timeout = subject.patience
        await backend.start(drained, run_id=subject.run_id(0))
        await begun.wait()
        leaving = asyncio.ensure_future(stack.pop_all().aclose())
        await asyncio.sleep(0)
        starting = asyncio.ensure_future(backend.start(latecomer, run_id=subject.run_id(1)))
        await asyncio.wait([starting], timeout=subject.unit if subject.unit < 10 else 0.05)
        assert not ran, "it took a run after it was told to stop"
        go_on.set()
        await leaving
        await starting
    async with subject.open([drained, latecomer]) as backend:
        run = await backend.start(latecomer, run_id=subject.run_id(1))
        assert await run.result() == "late"
    assert ran == ["late"]
