"""A worker whose process was stopped for longer than its heartbeat, before a body began."""

from __future__ import annotations

import time

import pytest

from durably.core import Context, current_step, function
from durably.core.steps import Point
from tests.temporal.subject import TemporalSubject

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

STOPPED = 1.5
"""Seconds: longer than the heartbeat of these tests, and shorter than the patience of a workflow task."""

executions: dict[str, list[int]] = {}
"""The numbers of the executions of the body, by its run."""


async def work() -> str:
    """A body that any worker can find by its name."""
    executions.setdefault(current_step().run_id, []).append(current_step().attempt)
    return "done"


@function("stopped")
async def stopped(ctx: Context[None]) -> str:
    return await ctx.step.run("work", work)


async def test_a_worker_that_wakes_after_its_heartbeat_begins_no_body(temporal_address: str) -> None:
    subject = TemporalSubject(temporal_address)
    stops: list[str] = []

    def stop(point: Point) -> None:
        if point.name == "before_body" and point.key == "work" and not stops:
            stops.append(point.run_id)
            time.sleep(STOPPED)  # the whole loop stands still, and says nothing to the server

    async with subject.open([stopped]) as backend:
        backend.probe = stop
        run = await backend.start(stopped, run_id=subject.run_id())
        assert await run.result() == "done"
    assert stops == [run.id]
    assert 1 not in executions[run.id], "only what the server asked for anew"
