"""Crons on Temporal: a time has one run, over days on the server whose time jumps, and over workers on a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowExecutionStatus

from durably.backends.temporal import TemporalBackend
from durably.backends.temporal.cron import CRON_CLOCK
from durably.core import Context, DefinitionError, Function, function
from durably.core.flow import Cron, CronTick
from durably.core.ids import new_id
from durably.testing.temporal import time_skipping
from tests.temporal.conftest import OpenTemporal, server_binary

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

BERLIN = ZoneInfo("Europe/Berlin")


@function("nap")
async def nap(ctx: Context[float]) -> None:
    await ctx.step.sleep("rest", ctx.input)


def ticking(seen: list[CronTick], cron: Cron | None, name: str = "ticking") -> Function[Any, Any]:
    async def note(tick: CronTick) -> None:
        seen.append(tick)

    @function(name, cron=cron)
    async def made(ctx: Context[CronTick]) -> None:
        await ctx.step.run("note", note, ctx.input)

    return made


@pytest_asyncio.fixture
async def skipping() -> AsyncIterator[Client]:
    async with time_skipping(server_binary("temporal-test-server")) as client:
        yield client


async def test_each_day_has_one_run(skipping: Client) -> None:
    seen: list[CronTick] = []
    daily = ticking(seen, Cron("30 9 * * *", timezone="Europe/Berlin"))
    async with TemporalBackend(skipping, task_queue=new_id(), functions=[daily, nap]) as backend:
        await backend.invoke(nap, 4 * 86400.0)
    days = sorted(tick.at.astimezone(BERLIN) for tick in seen)
    assert 3 <= len(days) <= 5
    assert {(day.hour, day.minute) for day in days} == {(9, 30)}
    assert [day.date() for day in days] == [days[0].date() + timedelta(days=n) for n in range(len(days))]


@pytest.mark.parametrize(("missed", "runs"), [("once", 1), ("each", 3)])
async def test_what_was_missed_is_made_up_for_as_chosen(
    missed: Any, runs: int, client: Client, open_temporal: OpenTemporal
) -> None:
    seen: list[CronTick] = []
    cron = Cron("0 * * * *", missed=missed)
    name = f"ticking-{new_id()}"  # a moment of a function has one run in a namespace, which tests share
    backend = open_temporal(ticking(seen, cron, name))
    state = {"function": name, "cron": asdict(cron), "tick": True}
    now = await _server_time(client)
    due = now - now % 3600 - 2 * 3600  # the clock was to wake two hours ago, and no worker was up
    await client.start_workflow(
        CRON_CLOCK,
        {**state, "due": due},
        id=f"{CRON_CLOCK}/{backend.task_queue}/{name}",
        task_queue=backend.task_queue,
    )
    async with backend:
        while len(seen) < runs:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        found = await backend.runs(function=name)
    assert len(found) == len(seen) == runs
    assert max(tick.at.timestamp() for tick in seen) == due + 2 * 3600
    assert {run.view.parent for run in found} == {None}


async def test_two_workers_start_one_run_and_an_option_that_goes_stops_it(
    client: Client, temporal_address: str, open_temporal: OpenTemporal
) -> None:
    seen: list[CronTick] = []
    one = open_temporal(ticking(seen, Cron("* * * * *")))
    # The SDK lets a client have one worker on a queue.
    other_client = await Client.connect(temporal_address)
    two = TemporalBackend(other_client, task_queue=one.task_queue, functions=[ticking(seen, Cron("* * * * *"))])
    async with one, two:
        clock = client.get_workflow_handle(f"{CRON_CLOCK}/{one.task_queue}/ticking")
        while not seen:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        await asyncio.sleep(1)
        assert len(await one.runs(function="ticking")) == len(seen) == 1
        assert (await clock.describe()).status is WorkflowExecutionStatus.RUNNING
    async with open_temporal(ticking(seen, None)):
        await clock.result()
    assert (await clock.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_a_schedule_that_cannot_be_read_is_refused(client: Client) -> None:
    with pytest.raises(DefinitionError, match=r"function 'ticking', cron: '61 . . . .' is not a schedule"):
        TemporalBackend(client, task_queue="q", functions=[ticking([], Cron("61 * * * *"))])


async def _server_time(client: Client) -> float:
    handle = await client.start_workflow("nobody", id=new_id(), task_queue=new_id())
    started = (await handle.describe()).start_time.timestamp()
    await handle.terminate()
    return started
