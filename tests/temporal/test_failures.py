"""What Temporal keeps of attempts that failed, and what nobody needs to hear of in the log."""

from __future__ import annotations

import asyncio
import logging

import pytest

from durably.core import Context, NonRetriableError, RetryPolicy, RunStatus, function
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

tries: list[str] = []


async def flaky() -> str:
    tries.append("x")
    if len(tries) < 3:
        raise ConnectionError(f"attempt {len(tries)}: {'e' * 100_000}")
    return "at last"


@function("flaky", retries=3, retry_policy=RetryPolicy(initial=0.01))
async def flaky_function(ctx: Context[None]) -> str:
    return await ctx.step.run("work", flaky)


async def test_the_failure_of_the_attempt_before_the_last_is_kept(open_temporal: OpenTemporal) -> None:
    tries.clear()
    async with open_temporal(flaky_function) as backend:
        run = await backend.start(flaky_function)
        assert await run.result() == "at last"
        (failed,) = [record for record in await run.history() if record.status == "retrying"]
    error = failed.error or {}
    assert (failed.attempt, error["type"], error["message"][:10]) == (2, "ConnectionError", "attempt 2:")
    assert "in flaky" in error["traceback"]


@function("slow-to-fail", retries=0)
async def slow_to_fail(ctx: Context[None]) -> None:
    await ctx.step.sleep("rest", 0.3)
    raise NonRetriableError("the child fails")


@function("impatient", retries=0)
async def impatient(ctx: Context[None]) -> None:
    async def leave() -> None:
        await ctx.step.sleep("less", 0.1)

    await ctx.step.gather(lambda: ctx.step.invoke("call", slow_to_fail), leave)


async def test_a_child_that_nobody_waits_for_any_more_is_no_complaint_of_asyncio(
    open_temporal: OpenTemporal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with open_temporal(slow_to_fail, impatient) as backend:
        run = await backend.start(impatient)
        await asyncio.sleep(0.15)
        await run.cancel()
        assert (await run.ended()).status is RunStatus.CANCELLED
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]
