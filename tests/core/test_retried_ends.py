"""What a retry of a run leaves as it is: a step that may run only once, and a call that ran out of its time."""

from __future__ import annotations

from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Context, InvokeError, RunStatus, function

pytestmark = pytest.mark.asyncio


async def _retried(backend: MemoryBackend, run: Any) -> str:
    """How a failed run ends that is retried."""
    await run.ended()
    await (await backend.run(run.id)).retry()
    with pytest.raises(InvokeError) as caught:
        await run.result()
    return caught.value.message


async def test_a_step_that_may_run_only_once_is_not_run_again() -> None:
    paid: list[int] = []

    async def pay() -> None:
        paid.append(1)
        raise ConnectionError("nobody knows whether it was paid")

    @function("payer", retries=0)
    async def payer(ctx: Context[None]) -> None:
        await ctx.step.run("pay", pay, at_most_once=True)

    async with MemoryBackend([payer]) as backend:
        said = await _retried(backend, await backend.start(payer))
    assert "nobody knows" in said
    assert paid == [1]


async def test_a_call_that_ran_out_of_its_time_is_not_waited_for_again() -> None:
    @function("slow")
    async def slow(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 100)

    @function("caller", retries=0)
    async def caller(ctx: Context[None]) -> None:
        await ctx.step.invoke("call", slow, timeout=10)

    async with MemoryBackend([caller, slow]) as backend:
        run = await backend.start(caller)
        said = await _retried(backend, run)
        (child,) = await backend.runs(function=slow)
        assert child.status is RunStatus.CANCELLED
        ends = [record.status for record in await run.history() if record.key == "call" and record.final]
    assert "call" in said
    assert ends == ["failed"], "its end is recorded once"
