"""What runs beside a body that kills its process is not blamed for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.crashes import CrashLog
from durably.core import Context, StepCrashedError, current_step, function
from durably.testing.conformance.subject import Kill

LIVES = 30

began: list[str] = []
"""The steps whose bodies began, in order, of all lives."""

beside: list[set[str]] = []
"""What ran at each crash."""

running: set[str] = set()

limits: dict[str, int] = {}


async def _slow(turns: int) -> str:
    """Lets others run for so many turns of the loop."""
    key = current_step().key
    began.append(key)
    running.add(key)
    for _ in range(turns):
        await asyncio.sleep(0)
    running.discard(key)
    return "done"


async def _kill(turns: int) -> None:
    await _slow(turns)
    beside.append(running | {current_step().key})
    raise Kill


@function("mixed")
async def mixed(ctx: Context[list[list[int]]]) -> list[str]:
    """Branches of steps that take so many turns; a negative number kills the process after as many."""

    async def branch(number: int, steps: Sequence[int]) -> str:
        try:
            for place, turns in enumerate(steps):
                name = f"b{number}s{place}"
                body = _kill if turns < 0 else _slow
                await ctx.step.run(name, body, abs(turns), crash_limit=limits.get(name))
        except StepCrashedError as error:
            return f"{error.crashes} crashes"
        return "done"

    return list(await ctx.step.gather(*(partial(branch, *each) for each in enumerate(ctx.input))))


async def result_of(branches: list[list[int]], open_backend: Any) -> tuple[list[str], int]:
    """Open worker after worker until one survives: what the run came to, and how many did not."""
    for each in (began, beside):
        each.clear()
    for lives in range(LIVES):
        running.clear()
        async with open_backend() as backend:
            run = await backend.start(mixed, branches, run_id="mixed")
            try:
                return await run.result(), lives
            except Kill:
                continue
    raise AssertionError(f"no end after {LIVES} lives: {began}")


def opener(engine: str, tmp_path: Path) -> Any:
    clock, journal = VirtualClock(), MemoryJournal()
    if engine == "memory":
        return lambda: MemoryBackend([mixed], journal=journal, clock=clock)
    return lambda: SQLiteBackend(tmp_path / "runs.db", [mixed], clock=clock)


@pytest.mark.asyncio
@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.parametrize(
    "branches",
    [
        [[500], [-5]],
        [[-5], [500]],
        [[500], [300], [-5], [400]],
        [[500], [-400]],
        [[500, 500], [1, 1, -1]],
        [[900], [20, 20, 20, 20, 20, 20, 20, 20, -1]],
    ],
)
async def test_only_the_step_that_kills_the_process_fails(
    engine: str, branches: list[list[int]], tmp_path: Path
) -> None:
    limits.clear()
    result, lives = await result_of(branches, opener(engine, tmp_path))
    assert result == [f"{lives} crashes" if min(steps) < 0 else "done" for steps in branches]
    assert lives <= 6
    assert max(Counter(began).values()) <= lives, "none runs again for nothing"


@pytest.mark.asyncio
async def test_two_that_kill_it_are_both_found_and_lives_are_bounded(tmp_path: Path) -> None:
    limits.clear()
    (first, calm, second), lives = await result_of([[-5], [500], [-7]], opener("memory", tmp_path))
    assert calm == "done"
    assert (first, second) == ("6 crashes", "6 crashes")
    assert lives <= 12


@pytest.mark.asyncio
async def test_a_step_with_a_limit_of_one_runs_alone_after_its_first_crash(tmp_path: Path) -> None:
    limits.update(b0s0=1)
    result, _ = await result_of([[500], [-5]], opener("memory", tmp_path))
    assert result[0] == "done"


@pytest.mark.asyncio
async def test_two_crashes_are_shared_and_then_bodies_run_one_at_a_time(tmp_path: Path) -> None:
    limits.clear()
    await result_of([[500], [-5], [300]], opener("memory", tmp_path))
    everybody = {"gather[0]/b0s0", "gather[1]/b1s0", "gather[2]/b2s0"}
    assert beside[:2] == [everybody, everybody]
    assert beside[2:] == [{"gather[1]/b1s0"}] * (len(beside) - 2)


def test_a_crash_is_put_down_to_the_step_that_ran_alone() -> None:
    log = CrashLog().crashed(3, 1.0).crashed(3, 2.0).came(resting=False, alone="a").crashed(3, 3.0)
    assert log.in_window(0, "a") == [1.0, 2.0, 3.0]
    assert log.in_window(0, "b") == [1.0, 2.0]
    assert log.crashed(3, 4.0).in_window(0, "b") == [1.0, 2.0, 4.0], "of the next life nothing is known yet"
    assert log.forgiven().in_window(0, "a") == []
