"""Decisions by what no record holds: found by the runs without a crash, and named."""

from __future__ import annotations

import itertools
import random
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from durably.core import Context, Function, function
from durably.testing import (
    NotDeterministicError,
    crash_matrix,
)

pytestmark = pytest.mark.asyncio


@function("greet")
async def greet(ctx: Context[str]) -> str:
    word = "odd" if datetime.now(UTC).day % 2 else "even"
    return await ctx.step.run(f"say-{word}", str.upper, ctx.input)


@function("by-time")
async def by_time(ctx: Context[str]) -> str:
    return await ctx.step.run(f"say-{int(time.time()) // 86_400 % 2}", str.upper, ctx.input)


@function("by-chance")
async def by_chance(ctx: Context[str]) -> str:
    return await ctx.step.run(f"say-{random.randrange(1_000_000)}", str.upper, ctx.input)


@function("by-set")
async def by_set(ctx: Context[list[str]]) -> int:
    for name in set(ctx.input):
        await ctx.step.run(f"tell-{name}", str.upper, name)
    return len(ctx.input)


@pytest.mark.parametrize(
    ("target", "data", "cause"),
    [
        (greet, "ann", "the clock"),
        (by_time, "ann", "the clock"),
        (by_chance, "ann", "the random generator"),
        (by_set, ["ann", "bob"], "the order of a set"),
    ],
    ids=["datetime", "time", "random", "set"],
)
async def test_a_hidden_input_is_found_and_named(target: Function[Any, Any], data: Any, cause: str) -> None:
    with pytest.raises(NotDeterministicError, match="two runs without any crash differ, first at step '") as caught:
        await crash_matrix(target, data)
    assert str(caught.value).endswith(f"What made the difference was {cause}.")
    assert "Read such things inside a step" in str(caught.value)


async def test_hidden_inputs_are_put_back() -> None:
    before = time.time, datetime, random.getstate()
    with pytest.raises(NotDeterministicError):
        await crash_matrix(greet, "ann")
    assert (time.time, datetime, random.getstate()) == before
    assert "set" not in globals()


async def test_a_body_that_answers_differently_is_refused() -> None:
    counter = itertools.count()

    @function("count")
    async def count(ctx: Context[str]) -> int:
        return await ctx.step.run("next", lambda: next(counter))

    with pytest.raises(NotDeterministicError, match="body answers differently each time"):
        await crash_matrix(count, "ann")
