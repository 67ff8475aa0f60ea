"""Runs that wait leave memory where there are many, and go on from their records: each body runs once all the same."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.core import Agent, Context, Event, Function, function, tool
from durably.core.conversation import Conversation
from durably.core.observer import Observer, RunEnded
from durably.core.run_view import RunStatus
from durably.testing import ScriptedModel, call

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

RUNS, STAY = 25, 3
ran: list[tuple[str, int]] = []


@pytest.fixture(autouse=True)
def _forget_bodies() -> None:
    ran.clear()


async def note(what: str, number: int) -> int:
    ran.append((what, number))
    return number


@function("child")
async def child(ctx: Context[int]) -> int:
    await ctx.step.wait_for_event("wait", "grown", match={"number": ctx.input})
    return ctx.input


@function("waiter")
async def waiter(ctx: Context[int]) -> list[Any]:
    """Waits in each way there is, one after the other."""
    number = await ctx.step.run("first", note, "first", ctx.input)
    event = await ctx.step.wait_for_event("wait", "go", match={"number": number})
    never = await ctx.step.wait_for_event("late", "never", timeout=0.01)
    await ctx.step.sleep("pause", 0.01)
    grown = await ctx.step.invoke("child", child, number)
    await ctx.step.run("last", note, "last", number)
    return [event and event.data["number"], never, grown]


FUNCTIONS: list[Function[Any, Any]] = [waiter, child]


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayBackend:
    if request.param == "memory":
        return MemoryBackend(FUNCTIONS, max_resting=STAY)
    return SQLiteBackend(tmp_path / "runs.db", FUNCTIONS, max_resting=STAY)


async def _start(backend: ReplayBackend) -> None:
    for number in range(RUNS):
        await backend.start(waiter, number, run_id=f"run-{number}")
    await backend.drain()


async def test_no_more_runs_stay_in_memory_than_was_said(backend: ReplayBackend) -> None:
    async with backend:
        await _start(backend)
        assert len(backend.live_runs) <= STAY
        assert {(await backend.run(f"run-{number}")).status for number in range(RUNS)} == {RunStatus.WAITING}


async def test_each_goes_on_from_where_it_was(backend: ReplayBackend) -> None:
    async with backend:
        await _start(backend)
        await backend.send(*[Event("go", {"number": number}) for number in range(RUNS)])
        await backend.drain()
        assert len(backend.live_runs) <= STAY
        await backend.send(*[Event("grown", {"number": number}) for number in range(RUNS)])
        for number in range(RUNS):
            assert await (await backend.run(f"run-{number}")).result() == [number, None, number]
        await backend.drain()
        assert backend.live_runs == []
    assert sorted(ran) == sorted((what, number) for what in ("first", "last") for number in range(RUNS))


class Ends(Observer):
    """Which runs it was told have ended, and whether with what began them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bool]] = []

    def run_ended(self, event: RunEnded) -> None:
        self.seen.append((event.run_id, event.status, event.cause is not None))


async def test_one_that_is_cancelled_is_told_of_once() -> None:
    ends = Ends()
    async with MemoryBackend(FUNCTIONS, max_resting=0, observers=[ends]) as backend:
        await backend.start(waiter, 1, run_id="run")
        await backend.drain()
        assert backend.live_runs == []
        await (await backend.run("run")).cancel()
        await backend.drain()
    assert ends.seen == [("run", "cancelled", True)]


async def test_what_another_process_does_reaches_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, FUNCTIONS, max_resting=0) as worker, SQLiteBackend(path) as client:
        runs = [await worker.start(child, number) for number in (1, 2)]
        await worker.drain()
        assert worker.live_runs == []
        await client.send(Event("grown", {"number": 1}))
        await (await client.run(runs[1].id)).cancel()
        assert await runs[0].result() == 1
        assert (await runs[1].ended()).status is RunStatus.CANCELLED


async def test_another_worker_goes_on_with_what_one_left(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, FUNCTIONS, max_resting=0) as first:
        runs = [await first.start(child, number) for number in range(RUNS)]
        await first.drain()
    async with SQLiteBackend(path, FUNCTIONS, max_resting=0) as second:
        await second.send(*[Event("grown", {"number": number}) for number in range(RUNS)])
        assert [(await second.wait(run.id)).output for run in runs] == [str(number) for number in range(RUNS)]


@tool(requires_approval=True)
async def pay() -> str:
    """Pay."""
    return "paid"


async def test_of_an_agent_that_waits_no_conversation_stays(tmp_path: Path) -> None:
    agent = Agent("clerk", model=ScriptedModel(call("pay"), "done"), instructions="", tools=[pay])
    async with SQLiteBackend(tmp_path / "runs.db", [agent], max_resting=STAY) as backend:
        gc.disable()  # without a cycle that only the collector would break
        try:
            before = _conversations()
            for number in range(RUNS):
                await backend.start(agent, "go", run_id=f"run-{number}")
            await backend.drain()
            assert _conversations() - before <= STAY
        finally:
            gc.enable()
        for asked in await backend.approvals():
            await backend.approve(asked.id)
            assert (await (await backend.run(asked.run_id)).result()).text == "done"


def _conversations() -> int:
    return sum(type(each) is Conversation for each in gc.get_objects())
