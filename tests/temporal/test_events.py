"""Events that come early, late, twice, or while no worker is up; and functions that several programs share."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Context, Event, FunctionRef, RetryAfterError, Run, current_step, function, run_worker
from durably.core.ids import new_id
from tests.temporal.conftest import OpenTemporal
from tests.temporal.test_code_change import OPTIONS

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@function("waiter")
async def waiter(ctx: Context[float | None]) -> list[Any]:
    first = await ctx.step.wait_for_event("go", "events/go", match={"run": ctx.run_id}, timeout=ctx.input)
    await ctx.step.sleep("rest", 0.2)
    second = await ctx.step.wait_for_event("more", "events/go", match={"run": ctx.run_id}, timeout=0.3)
    return [None if each is None else each.data["n"] for each in (first, second)]


def event(run_id: str, n: int) -> Event:
    return Event("events/go", {"run": run_id, "n": n}, id=f"{run_id}-{n}")


async def registered(run: Run[Any], key: str = "go") -> None:
    while not any(each.key == key for each in await run.history()):  # noqa: ASYNC110  # only the server knows
        await asyncio.sleep(0.02)


async def test_an_event_before_the_wait_or_after_its_timeout_does_not_count(open_temporal: OpenTemporal) -> None:
    async with open_temporal(waiter, **OPTIONS) as backend:
        run_id = new_id()
        await backend.send(event(run_id, 1))
        run = await backend.start(waiter, 0.2, run_id=run_id)
        while not any(each.key == "go" and each.final for each in await run.history()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await backend.send(event(run_id, 2))
        assert await run.result() == [None, None]
        settled = [each for each in (await run.history()).steps() if each.kind == "wait_for_event"]
        assert [each.value for each in settled] == [None, None], "the history says what the run saw"


async def test_an_event_that_comes_twice_is_one(open_temporal: OpenTemporal) -> None:
    async with open_temporal(waiter, **OPTIONS) as backend:
        run = await backend.start(waiter)
        await registered(run)
        await asyncio.gather(*(backend.send(event(run.id, 1)) for _ in range(3)))
        await registered(run, "more")
        await backend.send(event(run.id, 1))
        assert await run.result() == [1, None]


async def test_events_sent_while_no_worker_is_up_are_handed_on_in_their_order(open_temporal: OpenTemporal) -> None:
    async with open_temporal(waiter, **OPTIONS) as backend:
        run = await backend.start(waiter)
        await registered(run)
    caller = open_temporal()
    await caller.send(event(run.id, 1), event(run.id, 2))
    async with open_temporal(waiter, **OPTIONS) as backend:
        assert await (await backend.run(run.id)).result() == [1, None]


async def test_a_function_that_an_event_starts_while_no_worker_is_up(open_temporal: OpenTemporal) -> None:
    seen: list[int] = []

    @function("started", triggers=["events/start"])
    async def started(ctx: Context[int]) -> None:
        await ctx.step.run("note", lambda: seen.append(ctx.input))

    async with open_temporal(started, **OPTIONS):
        pass
    caller = open_temporal()
    await caller.send(*(Event("events/start", n, id=f"{caller.task_queue}-{n % 3}") for n in range(6)))
    async with open_temporal(started, **OPTIONS):
        while len(seen) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
    assert sorted(seen) == [0, 1, 2]


async def test_retry_after_is_temporals_own_delay(open_temporal: OpenTemporal) -> None:
    async with open_temporal(limited_run, **OPTIONS) as backend:
        run = await backend.start(limited_run)
        handle = backend.client.get_workflow_handle(run.id)
        while True:
            pending = (await handle.describe()).raw_description.pending_activities
            if pending and pending[0].attempt == 2:
                break
            await asyncio.sleep(0.02)
        assert pending[0].current_retry_interval.seconds == 30
        await run.cancel()


async def limited() -> None:
    if current_step().attempt == 1:
        raise RetryAfterError("slow down", delay=30)


@function("limited")
async def limited_run(ctx: Context[None]) -> None:
    await ctx.step.run("ask", limited)


@function("front")
async def front(ctx: Context[int]) -> int:
    twice: int = await ctx.step.invoke("call", FunctionRef("back", input_type=int, output_type=int), ctx.input)
    return twice + 1


@function("back")
async def back(ctx: Context[int]) -> int:
    return await ctx.step.run("double", double, ctx.input)


async def double(n: int) -> int:
    return 2 * n


async def test_programs_that_serve_different_functions_call_each_other(client: Client, temporal_address: str) -> None:
    queues = {"back": f"back-{new_id()}"}
    arguments = ["-m", "tests.temporal.test_events", temporal_address, queues["back"]]
    other = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    try:
        here = TemporalBackend(client, task_queue=f"front-{new_id()}", functions=[front], queues=queues)
        async with here as backend:
            assert await backend.invoke(front, 20) == 41
    finally:
        other.send_signal(signal.SIGTERM)
    assert await other.wait() == 0


async def main(address: str, queue: str) -> None:
    await run_worker(TemporalBackend(await Client.connect(address), task_queue=queue, functions=[back]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    os._exit(0)  # the SDK's native threads now and then abort an interpreter that takes its time to end
