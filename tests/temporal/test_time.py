"""On the test server, whose time jumps: what waits for days ends at once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.service import RPCError

from durably.backends.temporal import TemporalBackend
from durably.core import Agent, Context, Event, RunCancelledError, Singleton, current_step, function
from durably.core.ids import new_id
from durably.testing import ScriptedModel
from durably.testing.temporal import time_skipping
from tests.temporal.conftest import server_binary

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

DAY = 86_400

support = Agent("support", model=ScriptedModel("It ships today."), instructions="You help customers.")


async def flaky() -> int:
    if current_step().attempt < 4:
        raise ConnectionError("not yet")
    return current_step().attempt


@function("patient")
async def patient(ctx: Context[None]) -> list[object]:
    await ctx.step.sleep("rest", 30 * DAY)
    answer = await ctx.step.invoke("ask", support, "Where is order 7?")
    missed = await ctx.step.wait_for_event("reply", "time/never", timeout=DAY)
    return [answer.text, missed, await ctx.step.run("flaky", flaky)]


@function("woken")
async def woken(ctx: Context[None]) -> float:
    _, event = await ctx.step.gather(
        lambda: ctx.step.send_event("alarm", Event("time/alarm", ts=time.time() + DAY)),
        lambda: ctx.step.wait_for_event("ring", "time/alarm"),
    )
    assert event is not None
    return DAY


@function("single", singleton=Singleton(mode="skip"))
async def single(ctx: Context[None]) -> None:
    await ctx.step.sleep("rest", DAY)


@pytest_asyncio.fixture
async def skipping() -> AsyncIterator[Client]:
    async with time_skipping(server_binary("temporal-test-server")) as client:
        yield client


async def test_a_month_of_waiting_ends_at_once(skipping: Client) -> None:
    async with TemporalBackend(skipping, task_queue=new_id(), functions=[patient, support]) as backend:
        run = await backend.start(patient)
        assert await run.result() == ["It ships today.", None, 4]
        history = await run.history()
    assert history.records[-1].at - history.records[0].at > 31 * DAY, "by the server's clock"


async def test_an_event_of_tomorrow(skipping: Client) -> None:
    async with TemporalBackend(skipping, task_queue=new_id(), functions=[woken]) as backend:
        assert await backend.invoke(woken) == DAY


async def test_one_run_a_key(skipping: Client) -> None:
    async with TemporalBackend(skipping, task_queue=new_id(), functions=[single]) as backend:
        first, second = await backend.start(single), await backend.start(single)
        with pytest.raises(RunCancelledError):
            await second.result()
        await first.result()


async def test_what_the_test_server_cannot_do(skipping: Client) -> None:
    async with TemporalBackend(skipping, task_queue=new_id(), functions=[support]) as backend:
        with pytest.raises(RPCError, match="unimplemented"):
            await backend.runs()


@pytest.mark.parametrize("option", ["heartbeat", "drain", "task_timeout"])
async def test_options_that_are_no_duration_are_refused(option: str) -> None:
    client = object.__new__(Client)  # not connected: the options come first
    for bad in (float("nan"), -1, True, "soon", timedelta.max):
        options: dict[str, Any] = {option: bad}
        with pytest.raises((TypeError, ValueError), match=f"^{option} of TemporalBackend"):
            TemporalBackend(client, task_queue="q", **options)


@pytest.mark.parametrize("seconds", [0, 0.9, 121])
async def test_a_task_timeout_that_temporal_does_not_keep_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^task_timeout of TemporalBackend must be 1 to 120 seconds"):
        TemporalBackend(object.__new__(Client), task_queue="q", task_timeout=seconds)
