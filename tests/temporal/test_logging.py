"""What a function logs is heard once: over replays of Temporal's, and over attempts of the function."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from durably.core import Context, RetryPolicy, function
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


async def echo(text: str) -> str:
    return text


@function("talkative", retries=2, retry_policy=RetryPolicy(initial=0.01))
async def talkative(ctx: Context[None]) -> str:
    async def branch(name: str) -> None:
        ctx.logger.warning("%s begins", name)
        await ctx.step.run("first", echo, name)
        ctx.logger.warning("%s goes on", name)
        await ctx.step.run("second", lambda: name)
        await ctx.step.gather(lambda: inner(f"{name} left"), lambda: inner(f"{name} right"))

    async def inner(name: str) -> None:
        ctx.logger.warning("%s begins", name)
        await ctx.step.sleep("rest", 0.01)
        ctx.logger.warning("%s goes on", name)
        await ctx.step.run("last", echo, name)

    ctx.logger.warning("the run begins")
    await ctx.step.gather(lambda: branch("one"), lambda: branch("two"))
    if ctx.attempt == 1:
        raise ConnectionError("behind the gather: only its branches have recorded steps left")
    ctx.logger.warning("the run goes on")
    await ctx.step.run("end", echo, "end")
    if ctx.attempt == 2:
        raise ConnectionError("at the end")
    return "done"


@pytest.mark.parametrize("cache", [100, 0])
async def test_a_line_in_a_branch_is_heard_once_over_a_retry_of_the_function(
    open_temporal: OpenTemporal, caplog: pytest.LogCaptureFixture, cache: int
) -> None:
    caplog.set_level(logging.WARNING, "durably.run.talkative")
    options = {"worker_options": {"max_cached_workflows": cache}, "heartbeat": timedelta(seconds=1)}
    async with open_temporal(talkative, **options) as backend:
        assert await backend.invoke(talkative) == "done"
    heard = [record.getMessage() for record in caplog.records if record.name == "durably.run.talkative"]
    names = ["the run", *(f"{branch}{part}" for branch in ("one", "two") for part in ("", " left", " right"))]
    assert sorted(heard) == sorted(f"{name} {what}" for name in names for what in ("begins", "goes on"))
