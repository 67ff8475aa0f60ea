"""A worker whose lease ended while it lives, stopped at each point in turn, beside the one that took its run over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Context, Event, function
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill

pytestmark = pytest.mark.asyncio

told: set[tuple[str | None, str]] = set()
children: set[str] = set()


async def _echo(value: int) -> int:
    return value


@function("child")
async def child(ctx: Context[int]) -> int:
    children.add(ctx.run_id)
    return await ctx.step.run("inner", _echo, ctx.input)


@function("listener", triggers=["zombie/told"])
async def listener(ctx: Context[Any]) -> None:
    told.add((ctx.event.id, ctx.run_id))


@function("busy")
async def busy(ctx: Context[None]) -> list[Any]:
    step = ctx.step
    found: list[Any] = [await step.run("first", _echo, 1)]
    found += await step.gather(lambda: step.run("left", _echo, 2), lambda: step.invoke("call", child, 3))
    await step.sleep("nap", 60)
    await step.send_event("tell", Event("zombie/told"))
    return [*found, await step.run("last", _echo, 4)]


async def _paused_at(number: int, *, late: bool) -> str | None:
    """Stop a worker at the n-th point, let another one take over, let both go on. The point, or ``None`` past the end.

    Args:
        number: Which point.
        late: Whether the first worker goes on only when the second has ended the run.
    """
    told.clear()
    children.clear()
    reached, go_on = asyncio.Event(), asyncio.Event()
    where: list[Point] = []
    seen = 0

    def pause(point: Point) -> Awaitable[Any] | None:
        nonlocal seen
        seen += 1
        if seen != number + 1:
            return None
        where.append(point)
        reached.set()
        return go_on.wait()

    first = MemoryBackend([busy, child, listener])
    async with first:
        first.probe = pause
        waiting = asyncio.ensure_future(first.invoke(busy, run_id="r"))
        stopped = asyncio.ensure_future(reached.wait())
        await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if where:
            first.journal.bury(first.worker)
        async with MemoryBackend([busy, child, listener], journal=first.journal) as second:
            run = await second.run("r")
            if not late:
                go_on.set()
            assert await run.result() == [1, 2, 3, 4]
            history = await run.history()
            go_on.set()
            await second.drain()
            for _ in range(30):
                await asyncio.sleep(0)
            assert await run.history() == history, "nothing is written after the end"
        waiting.cancel()
    assert [record.seq for record in history] == list(range(len(history)))
    keys = [record.key for record in history.steps()]
    assert sorted(keys) == ["first", "gather[0]/left", "gather[1]/call", "last", "nap", "tell"]
    assert len(told) == 1, "one event, one run"
    assert len(children) == 1, "one child"
    return where[0].name if where else None


async def test_nobody_waits_for_a_worker_that_has_died() -> None:
    async with MemoryBackend([busy, child, listener]) as backend:
        run = await backend.start(busy)
        backend.crash(Kill())
        for wait in (run.result, backend.drain, run.history, run.cancel):
            with pytest.raises(Kill):
                await wait()


@pytest.mark.parametrize("late", [False, True], ids=["interleaved", "late"])
async def test_two_workers_at_every_point(late: bool) -> None:
    names = set()
    number = 0
    while (name := await _paused_at(number, late=late)) is not None:
        names.add(name)
        number += 1
    assert number > 25
    assert {"before_body", "after_effect", "after_commit", "child_started", "after_send", "before_result"} <= names
