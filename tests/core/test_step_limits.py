"""More steps or branches than an engine takes are refused before any of them begins, with the number."""

from __future__ import annotations

from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.backends.inngest.recorded_steps import MOST_STEPS
from durably.backends.inngest.steps import InngestSteps
from durably.backends.replay.steps import ReplaySteps
from durably.backends.temporal.steps import TemporalSteps
from durably.core import Context, function
from durably.core.errors import DurablyError, TooManyStepsError

pytestmark = pytest.mark.asyncio

begun: list[int] = []


async def note(number: int) -> int:
    begun.append(number)
    return number


@function("in-a-row", retries=0)
async def in_a_row(ctx: Context[int]) -> int:
    for number in range(ctx.input):
        await ctx.step.run("note", note, number)
    return ctx.input


@function("side-by-side", retries=0)
async def side_by_side(ctx: Context[int]) -> int:
    step = ctx.step

    def branch(number: int) -> Any:
        return lambda: step.run("note", note, number)

    return len(await step.gather(*map(branch, range(ctx.input))))


@function("goes-on", retries=0)
async def goes_on(ctx: Context[int]) -> str:
    try:
        await ctx.step.gather(*[lambda: ctx.step.run("note", note, 0)] * ctx.input)
    except TooManyStepsError:
        await ctx.step.run("note", note, -1)
    return "went on"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    begun.clear()
    monkeypatch.setattr(ReplaySteps, "most_steps", 10)
    monkeypatch.setattr(ReplaySteps, "most_branches", 6)


@pytest.mark.parametrize("evict", ["never", "always"])
async def test_the_step_behind_the_last_that_fits_is_refused(evict: Any) -> None:
    async with MemoryBackend([in_a_row], evict=evict) as backend:
        assert await backend.invoke(in_a_row, 10) == 10
        begun.clear()
        with pytest.raises(DurablyError, match=r"would make 11 steps in one run, and this engine takes 10\."):
            await backend.invoke(in_a_row, 20)
    assert begun == list(range(10))


async def test_branches_that_are_too_many_are_refused_before_the_first_begins() -> None:
    async with MemoryBackend([side_by_side]) as backend:
        assert await backend.invoke(side_by_side, 6) == 6
        begun.clear()
        with pytest.raises(DurablyError, match=r"'gather' would make 7 branches at a time, and this engine takes 6\."):
            await backend.invoke(side_by_side, 7)
    assert begun == []


async def test_code_does_not_go_on_from_it() -> None:
    async with MemoryBackend([goes_on]) as backend:
        with pytest.raises(DurablyError, match="branches at a time"):
            await backend.invoke(goes_on, 7)
    assert begun == []


async def test_the_engines_know_their_limits() -> None:
    assert (InngestSteps.most_steps, InngestSteps.most_branches, MOST_STEPS) == (None, None, 999)
    assert (TemporalSteps.most_steps, TemporalSteps.most_branches) == (None, 2_000)
