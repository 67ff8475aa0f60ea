"""A run that a worker takes over has the time that its replay needs, whatever the heartbeat of its bodies."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

import pytest
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend, workflow_runner
from durably.core import Context, Event, Run, function
from durably.core.run_events import child_id
from tests.temporal.conftest import OpenTemporal
from tests.temporal.test_events import registered
from tests.temporal.test_fan_out import double

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]

BRANCHES = 1_000 if os.environ.get("DURABLY_LONG") else 100


@function("waits-last", crash_limit=1)
async def waits_last(ctx: Context[int]) -> int:
    """So many steps side by side, and then a wait."""
    step = ctx.step
    doubled = await step.gather(*(lambda number=n: step.run("double", double, number) for n in range(ctx.input)))
    await step.wait_for_event("ear", "slow/go", match={"run": ctx.run_id})
    return sum(doubled)


@function("short")
async def short(ctx: Context[None]) -> None:
    """Does nothing."""


@function("goes-on", retries=1)
async def goes_on(ctx: Context[None]) -> None:
    """Goes on in a fresh history, and begins a child there."""
    if ctx.attempt == 1:
        raise ConnectionError("again")
    await ctx.step.invoke("child", short)


async def take_over(run: Run[Any], open_temporal: OpenTemporal, **options: Any) -> Any:
    """The result of a run that waits, on another worker."""
    async with open_temporal(waits_last, **options) as backend:
        await backend.send(Event("slow/go", {"run": run.id}))
        return await (await backend.run(run.id)).result()


async def test_a_worker_that_is_soon_taken_for_dead_takes_over_many_branches(open_temporal: OpenTemporal) -> None:
    options: dict[str, Any] = {"heartbeat": 2, "task_timeout": 10}
    async with open_temporal(waits_last, **options) as backend:
        run = await backend.start(waits_last, BRANCHES)
        await registered(run, "ear")
    assert await take_over(run, open_temporal, **options) == BRANCHES * (BRANCHES - 1)


async def test_a_task_has_the_same_time_in_each_history_and_child(client: Client, open_temporal: OpenTemporal) -> None:
    assert TemporalBackend(client, task_queue="q", heartbeat=1)._host.task_timeout == timedelta(seconds=10)
    async with open_temporal(goes_on, short, heartbeat=1, task_timeout=7) as backend:
        run = await backend.start(goes_on)
        await run.result()
        found = [client.get_workflow_handle(each) for each in (run.id, child_id(run.id, "child"))]
        first = (await found[0].describe()).raw_description.workflow_execution_info.first_run_id
        histories = [await each.fetch_history() for each in [*found, client.get_workflow_handle(run.id, run_id=first)]]
    begun = [history.events[0].workflow_execution_started_event_attributes for history in histories]
    assert [each.workflow_task_timeout.seconds for each in begun] == [7, 7, 7]
    assert begun[0].continued_execution_run_id == first


async def test_a_task_that_takes_too_long_is_no_crash_of_the_worker_that_lives(
    open_temporal: OpenTemporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives a task more time from its fourth attempt on, when two crashes would be too many."""
    async with open_temporal(waits_last, task_timeout=1) as backend:
        run = await backend.start(waits_last, 4)
        await registered(run, "ear")
    activate = workflow_runner._CheckedInstance.activate
    replayed = 0

    def slow(instance: Any, act: WorkflowActivation) -> Any:
        nonlocal replayed
        if act.is_replaying:
            replayed += 1
            time.sleep(0.7)
        return activate(instance, act)

    monkeypatch.setattr(workflow_runner._CheckedInstance, "activate", slow)
    assert await take_over(run, open_temporal, task_timeout=1) == 12
    assert replayed > 4, "it was replayed again"
