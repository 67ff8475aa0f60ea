"""How long one life of an experiment may take, and what is said of a run that does not end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from durably.core import Context, Function, current_step
from durably.testing import NotDeterministicError, crash_matrix
from durably.testing.crash.engines import find_engine
from durably.testing.crash.experiment import run_experiment
from durably.testing.crash.faults import Crash
from durably.testing.crash.scenario import Scenario

pytestmark = pytest.mark.asyncio


async def stops_once() -> int:
    if current_step().attempt == 1:
        time.sleep(1.5)  # noqa: ASYNC251 - as if this process had been stopped
    return 1


async def hangs_after_a_crash() -> int:
    if current_step().attempt > 1:
        await asyncio.Event().wait()
    return 1


def of(body: Callable[[], Awaitable[int]]) -> Function[None, int]:
    async def code(ctx: Context[None]) -> int:
        return await ctx.step.run("body", body)

    return Function[None, int]("code", code, input_type=None, output_type=int)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_time_in_which_the_process_was_stopped_does_not_count(backend: str) -> None:
    scenario = Scenario(target=of(stops_once), engine=find_engine(backend), deadline=1)
    found = await run_experiment(scenario)
    assert (found.trouble, found.output) == ("", "1")


async def test_a_run_that_hangs_the_second_time_is_not_said_to_decide_by_the_clock() -> None:
    lives: list[int] = []

    async def hangs_the_second_time() -> int:
        lives.append(len(lives))
        if len(lives) > 1:
            await asyncio.Event().wait()
        return 1

    with pytest.raises(NotDeterministicError, match=r"without any crash, the run did not end within 0\.5 seconds"):
        await crash_matrix(of(hangs_the_second_time), deadline=0.5)


async def test_a_run_that_hangs_after_a_crash_breaks_the_law_of_ends_and_no_other() -> None:
    def look(world: list[str]) -> None:
        raise AssertionError("an unfinished world was looked at")

    def fresh() -> Function[None, int]:
        return of(hangs_after_a_crash)

    found = await run_experiment(
        Scenario(target=fresh, engine=find_engine("memory"), deadline=0.5), [Crash("body", "after_effect")]
    )
    assert found.trouble == "the run did not end within 0.5 seconds"
    report = await crash_matrix(fresh, points="after_effect", deadline=0.5)
    (cell,) = report.failures
    assert [violation.law for violation in cell.violations] == ["L12"]
    assert "L12 broken: the run did not end within 0.5 seconds" in str(report)
