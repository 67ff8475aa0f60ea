"""A worker whose lease ended while it lives, stopped at each point in turn, beside the one that took its run over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend, SQLiteJournal
from durably.core import Context, Event, RunStatus, current_step, function
from durably.core.body_threads import BodyThreads
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


begun: list[tuple[str, int]] = []
may_end = threading.Event()


def _threaded() -> int:
    step = current_step()
    begun.append((step.run_id, step.attempt))
    if begun[-1] == ("holds", 1):
        may_end.wait()
    return step.attempt


@function("threaded")
async def threaded(ctx: Context[None]) -> int:
    return await ctx.step.run("body", _threaded)


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_body_that_waits_for_a_thread_does_not_begin_once_its_run_is_lost(
    renewed: bool, tmp_path: Path
) -> None:
    begun.clear()
    may_end.clear()
    first, second = (SQLiteBackend(tmp_path / "runs.db", [threaded]) for _ in range(2))
    first.environment.body_threads = BodyThreads(limit=1)
    asked: list[str] = []
    first.probe = lambda point: asked.append(point.run_id) if point.name == "before_body" else None
    async with first:
        for run_id in ("holds", "queues"):
            await first.start(threaded, run_id=run_id)
            while run_id not in asked:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with second:
            while (await second.run("queues")).status is not RunStatus.COMPLETED:
                second.journal.groups.settle()  # else its commit would wait for this loop, and the next line for it
                first.lease.lose()
                second.claims.claim_runs()
                await asyncio.sleep(0.01)
            if renewed:  # the lease holds again, and not for what was lost meanwhile
                await first.lease.renew()
            may_end.set()
            while first.live_runs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert ("queues", 2) in begun
    assert ("queues", 1) not in begun


async def test_a_body_that_waits_for_a_thread_does_not_begin_once_its_run_is_cancelled(tmp_path: Path) -> None:
    begun.clear()
    may_end.clear()
    asked: list[str] = []
    async with SQLiteBackend(tmp_path / "runs.db", [threaded]) as backend:
        backend.environment.body_threads = BodyThreads(limit=1)
        backend.probe = lambda point: asked.append(point.run_id) if point.name == "before_body" else None
        for run_id in ("holds", "queues"):
            await backend.start(threaded, run_id=run_id)
            while run_id not in asked:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await (await backend.run("queues")).cancel()
        may_end.set()
        assert await (await backend.run("holds")).result() == 1
        while backend.live_runs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert begun == [("holds", 1)]


async def test_a_run_that_was_lost_before_its_code_began_is_not_begun(tmp_path: Path) -> None:
    begun.clear()
    first, second = (SQLiteBackend(tmp_path / "runs.db", [threaded]) for _ in range(2))
    async with first:
        await first.start(threaded, run_id="taken")  # its task is there, and has not run yet
        first.lease.lose()
        second.journal.open()
        second.journal.lease("another", time.time() + 60)
        (row,) = second.journal.claim("another", ["threaded"], time.time()).runs
        second.journal.close()
        await first.lease.renew()
        while first.live_runs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert row.fence == 2
    assert begun == []


async def test_a_worker_whose_lease_is_over_takes_no_run_before_it_is_renewed(tmp_path: Path) -> None:
    journal, now = SQLiteJournal(tmp_path / "runs.db"), time.time()
    async with SQLiteBackend(tmp_path / "runs.db", [threaded]) as first:
        await first.start(threaded, run_id="left")
        first.lease.lose()
        journal.open()
        journal.lease("late", now - 1)
        assert journal.claim("late", ["threaded"], now).runs == []
        journal.lease("late", now + 60)
        assert [row.id for row in journal.claim("late", ["threaded"], now).runs] == ["left"]
        journal.close()
        await first.lease.renew()
        while first.live_runs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
