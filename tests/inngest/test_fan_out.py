"""What many branches of a run cost on Inngest, which makes a request for each of them."""

from __future__ import annotations

import gc
from collections import Counter
from types import FrameType
from typing import Any

import pytest

from durably.core import Context, function
from durably.core.step_keys import Branch
from durably.testing.inngest import InngestEngine
from tests.benchmarks.entries import profiled
from tests.inngest.conftest import OpenInngest, to_its_end


async def echo(number: int) -> int:
    return number


@function("fan-out")
async def branches(ctx: Context[int]) -> int:
    def branch(number: int) -> Branch:
        return lambda: ctx.step.run("echo", echo, number)

    return len(await ctx.step.gather(*map(branch, range(ctx.input))))


@pytest.mark.asyncio
async def test_a_branch_costs_little_more_beside_many_others(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    async with open_inngest(branches) as backend:
        _, few, many = [await calls_of(engine, backend, count) / count for count in (4, 10, 40)]
    assert many <= 1.25 * few, (few, many)


async def calls_of(engine: InngestEngine, backend: Any, count: int) -> int:
    """How many Python functions a run of so many branches calls."""
    calls = 0

    def note(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    with profiled(note):
        assert await to_its_end(engine, backend.invoke(branches, count)) == count
    return calls


@pytest.mark.asyncio
async def test_what_a_request_leaves_behind_needs_no_garbage_collection(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    async with open_inngest(branches) as backend:
        _, few, many = [await left_by(engine, backend, count) for count in (4, 4, 8)]
    # The SDK leaves some of its own for each request.
    assert many - few <= 4 * 10, (few, many)


async def left_by(engine: InngestEngine, backend: Any, count: int) -> int:
    """How many objects of ours a run of so many branches leaves to the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        assert await to_its_end(engine, backend.invoke(branches, count)) == count
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(type(each).__module__.partition(".")[0] for each in gc.garbage)
        return kinds["durably"] + sum(type(each).__name__ in ("frame", "traceback") for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
