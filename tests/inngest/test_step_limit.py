"""Inngest takes a limited number of steps of a run. What would exceed it is refused, and nothing of it begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from durably.backends.inngest import recorded_steps
from durably.cli import fleet_plan
from durably.cli.fleet_plan import cost_of
from durably.core import Context, InvokeError, RetryAfterError, StepAPI, function
from durably.testing.inngest import InngestEngine, runs
from tests.inngest.conftest import OpenInngest, to_its_end

MOST = 9
begun: list[int] = []


async def note(number: int) -> int:
    begun.append(number)
    return number


async def fail_once(number: int) -> int:
    begun.append(number)
    if begun.count(number) == 1:
        raise RetryAfterError("later", delay=1)
    return number


@function("limited-leaf")
async def leaf(ctx: Context[int]) -> int:
    return await note(ctx.input)


Do = Callable[[StepAPI, int], Awaitable[Any]]

KINDS: dict[str, tuple[Do, int]] = {
    "run": (lambda step, n: step.run("do", note, n), 1),
    "retry": (lambda step, n: step.run("do", fail_once, n, retries=1), 3),
    "at-most-once": (lambda step, n: step.run("do", note, n, at_most_once=True), 2),
    "invoke": (lambda step, n: step.invoke("do", leaf, n), 2),
    "sleep": (lambda step, n: step.sleep("do", 2), 3),
    "wait": (lambda step, n: step.wait_for_event("do", "limited/never", timeout=2), 2),
}
"""What a step is, and how many steps of Inngest it takes."""


@function("limited-row", retries=0)
async def row(ctx: Context[tuple[str, int]]) -> int:
    kind, count = ctx.input
    for number in range(count):
        await KINDS[kind][0](ctx.step, number)
    return count


@function("limited-branches", retries=0)
async def branches(ctx: Context[tuple[str, int]]) -> int:
    kind, count = ctx.input
    return len(await ctx.step.gather(*(partial(KINDS[kind][0], ctx.step, number) for number in range(count))))


@function("limited-retries", retries=5)
async def retried(ctx: Context[int]) -> int:
    for number in range(ctx.input):
        await ctx.step.run("do", note, number)
    raise ValueError("the code itself fails")


LIMITS = recorded_steps.MOST_STEPS, runs.MOST_STEPS


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    begun.clear()
    monkeypatch.setattr(recorded_steps, "MOST_STEPS", MOST)
    monkeypatch.setattr(runs, "MOST_STEPS", MOST + 1)


def test_the_layer_stays_below_the_engine() -> None:
    assert LIMITS == (999, 1000)
    assert LIMITS[0] == fleet_plan.MOST_STEPS


@pytest.mark.parametrize("hold", [60.0, 0.0], ids=["suspended", "replayed"])
@pytest.mark.parametrize("shape", [row, branches], ids=["row", "branches"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.asyncio
async def test_as_many_as_fit_end_and_one_more_is_refused(
    engine: InngestEngine, open_inngest: OpenInngest, kind: str, shape: Any, hold: float
) -> None:
    fit = MOST // KINDS[kind][1]
    async with open_inngest(row, branches, leaf, hold=hold) as backend:
        assert await to_its_end(engine, backend.invoke(shape, (kind, fit))) == fit
        begun.clear()
        with pytest.raises(InvokeError, match=f"this engine takes {MOST}") as refused:
            await to_its_end(engine, backend.invoke(shape, (kind, fit + 1)))
    assert refused.value.error_type == "TooManyStepsError"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.asyncio
async def test_a_plan_for_inngest_counts_as_inngest_does(
    engine: InngestEngine, open_inngest: OpenInngest, kind: str
) -> None:
    async with open_inngest(row, leaf) as backend:
        run = await to_its_end(engine, backend.start(row, (kind, 2)))
        await to_its_end(engine, run.result())
        cost = cost_of([await run.history()])
    (counted,) = [len(each.steps) for each in engine.runs.values() if each.function.endswith("limited-row")]
    assert (cost.inngest_steps, cost.largest) == (counted, counted) == (2 * KINDS[kind][1],) * 2


@pytest.mark.asyncio
async def test_branches_that_are_too_many_do_not_begin(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    async with open_inngest(branches) as backend:
        with pytest.raises(InvokeError, match="would make 10 steps on Inngest in one run"):
            await to_its_end(engine, backend.invoke(branches, ("run", MOST + 1)))
    assert begun == []


@pytest.mark.asyncio
async def test_code_that_fails_without_room_for_another_attempt_has_failed(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    async with open_inngest(retried) as backend:
        with pytest.raises(InvokeError, match="the code itself fails"):
            await to_its_end(engine, backend.invoke(retried, MOST))
    assert begun == list(range(MOST))
