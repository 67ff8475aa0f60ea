"""What a failure says to do: the line of the user's code, and a patch for each of the common causes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from durably.core import Agent, Context, Function, create_agent_loop, current_step, function, tool
from durably.testing import NotDeterministicError, PointNotReachedError, ScriptedModel, call, crash_matrix
from durably.testing.source_lines import caller_line, definition_line

pytestmark = pytest.mark.asyncio

HERE = Path(__file__).read_text(encoding="utf-8").splitlines()


def line_of(mark: str) -> str:
    """The line of this file that ends with a mark."""
    (number,) = [number for number, line in enumerate(HERE, 1) if line.endswith(f"# {mark}")]
    return f"test_explain.py:{number} in "


def paying_agent(keyed: bool) -> tuple[Agent, list[str]]:
    paid: list[str] = []

    @tool  # the tool that pays
    async def pay(order_id: str) -> str:
        if keyed:
            assert current_step().idempotency_key
        paid.append(order_id)
        return "paid"

    return Agent("desk", model=ScriptedModel(call("pay", order_id="7"), "done"), instructions="x", tools=[pay]), paid


def wrapped() -> tuple[Function[Any, Any], list[str]]:
    agent, paid = paying_agent(keyed=False)

    @function("handle")
    async def handle(ctx: Context[str]) -> str:
        return (await create_agent_loop(agent, ctx.input)(ctx.step, ctx.logger)).text

    return handle, paid


def plain() -> tuple[Function[Any, Any], list[str]]:
    paid: list[str] = []

    @function("pay")
    async def pay(ctx: Context[str]) -> None:
        await ctx.step.run("charge", paid.append, ctx.input)  # the step that pays

    return pay, paid


@pytest.mark.parametrize(
    ("target", "mark", "patch"),
    [
        (lambda: paying_agent(False), "the tool that pays", "take key = current_step().idempotency_key in the body"),
        (lambda: paying_agent(True), "the tool that pays", "let the receiver keep it with the effect"),
        (wrapped, "the tool that pays", "take key = current_step().idempotency_key in the body"),
        (plain, "the step that pays", "take key = current_step().idempotency_key in the body"),
    ],
    ids=["tool", "key ignored", "tool of an agent that a function runs", "step"],
)
async def test_a_repeated_effect_names_its_line(target: Any, mark: str, patch: str) -> None:
    report = await crash_matrix(target, "7", state=list, points="after_effect")
    (violation,) = [each for cell in report.failures for each in cell.violations if each.law == "L1"]
    assert line_of(mark) in violation.line
    assert patch in violation.patch
    assert f"     in: {violation.line}\n     patch: {violation.patch}" in str(report)
    cells = json.loads(report.to_json())["cells"]
    assert [each["patch"] for cell in cells for each in cell["violations"]] == [violation.patch]
    assert "patch: " in report.to_html()


@function("by-clock")
async def by_clock(ctx: Context[str]) -> None:
    if datetime.now(UTC).day % 2:  # looks at the date
        await ctx.step.run("odd", str.upper, ctx.input)
    await ctx.step.run("even", str.upper, ctx.input)


@function("by-time")
async def by_time(ctx: Context[str]) -> None:
    day = time.time() // 86_400  # looks at the time
    await ctx.step.run(f"day-{day:.0f}", str.upper, ctx.input)


@function("by-set")
async def by_set(ctx: Context[str]) -> None:
    for letter in set(ctx.input):  # goes through a set
        await ctx.step.run(f"say-{letter}", str.upper, letter)


@function("by-chance")
async def by_chance(ctx: Context[str]) -> None:
    await ctx.step.run(f"say-{random.randrange(1_000_000)}", str.upper, ctx.input)  # asks by chance


calls: list[str] = []


@function("by-global")
async def by_global(ctx: Context[str]) -> None:
    calls.append(ctx.input)
    await ctx.step.run(f"call-{len(calls)}", str.upper, ctx.input)  # asks by a list


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (by_clock, f"{line_of('looks at the date')}by_clock: look at the clock in a step"),
        (by_time, f"{line_of('looks at the time')}by_time: look at the clock in a step"),
        (by_set, f"{line_of('goes through a set')}by_set: go through sorted(...) of the set"),
        (by_chance, f"{line_of('asks by chance')}by_chance.\n"),
        (by_chance, "patch: draw in a step"),
        (by_global, f"{line_of('asks by a list')}by_global.\n"),
        (by_global, "What made the difference was the global variable 'calls'."),
        (by_global, "patch: keep in the run what the run decides by"),
    ],
)
async def test_what_code_decides_by_is_named_with_its_line(target: Function[Any, Any], said: str) -> None:
    with pytest.raises(NotDeterministicError) as caught:
        await crash_matrix(target, "ab")
    assert said in str(caught.value)


@function("hasty")
async def hasty(ctx: Context[str]) -> None:
    await asyncio.gather(ctx.step.run("a", str.upper, "a"), ctx.step.run("b", str.upper, "b"))  # begins two at once


async def test_steps_that_begin_at_once_are_named_with_their_line() -> None:
    with pytest.raises(NotDeterministicError) as caught:
        await crash_matrix(hasty, "x")
    assert f"{line_of('begins two at once')}hasty: write await ctx.step.gather(" in str(caught.value)


async def test_a_matrix_may_begin_at_a_step() -> None:
    report = await crash_matrix(lambda: paying_agent(True), "7", since="tool-pay", crashes=2)
    firsts = [cell.label.split(", ")[0] for cell in report.cells if cell.crashes]
    assert {label.split("/")[0] for label in firsts} == {"tool-pay", "think:1", "run"}
    assert "run/before_first" not in firsts
    assert "run/after_result" in firsts
    with pytest.raises(PointNotReachedError, match="tool-nosuch"):
        await crash_matrix(lambda: paying_agent(True), "7", since="tool-nosuch")


async def test_lines_of_what_has_none() -> None:
    assert definition_line(str.upper) == ""
    assert caller_line().endswith("in test_lines_of_what_has_none")
