"""What a run leaves in memory when it has ended is freed at once, and does not wait for the garbage collector.

A cycle would keep all that a pass of the run's code knew, such as a conversation of 100 kB, for thousands of runs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.core import Agent, Context, DurablyError, Event, Function, StepAPI, function, tool
from durably.testing import ScriptedModel, call

pytestmark = pytest.mark.asyncio


async def echo(number: int) -> int:
    return number


def echo_in_thread(number: int) -> int:
    return number


async def fail(number: int) -> int:
    raise ValueError(number)


def fail_in_thread(number: int) -> int:
    raise ValueError(number)


async def hang(number: int) -> None:
    await asyncio.sleep(60)


async def leave(number: int) -> None:
    raise SystemExit


async def cancel_itself(number: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


@function("garbage-leaf")
async def leaf(ctx: Context[int]) -> int:
    return ctx.input


@function("garbage-broken", retries=1)
async def broken(ctx: Context[int]) -> int:
    raise ValueError(ctx.input)


async def gathered(step: StepAPI, do: Callable[[int], Awaitable[Any]]) -> None:
    await step.gather(*(partial(do, number) for number in range(3)))


async def answered(step: StepAPI) -> None:
    await step.gather(
        lambda: step.wait_for_event("ear", "garbage/said", timeout=60),
        lambda: step.send_event("mouth", Event("garbage/said")),
    )


STEPS: dict[str, Callable[[StepAPI], Awaitable[Any]]] = {
    "run": lambda step: step.run("do", echo, 1),
    "run in a thread": lambda step: step.run("do", echo_in_thread, 1),
    "failure": lambda step: step.run("do", fail, 1, retries=1),
    "failure in a thread": lambda step: step.run("do", fail_in_thread, 1, retries=0),
    "timeout": lambda step: step.run("do", hang, 1, timeout=0.001, retries=0),
    "within its timeout": lambda step: step.run("do", echo, 1, timeout=60),
    "failure within its timeout": lambda step: step.run("do", fail, 1, timeout=60, retries=0),
    "exit": lambda step: step.run("do", leave, 1, retries=0),
    "cancelled from inside": lambda step: step.run("do", cancel_itself, 1, retries=0),
    "once": lambda step: step.run("do", echo, 1, at_most_once=True),
    "large": lambda step: step.run("do", str.__mul__, "x", 2_000_000),
    "invoke": lambda step: step.invoke("do", leaf, 1),
    "broken invoke": lambda step: step.invoke("do", broken, 1),
    "sleep": lambda step: step.sleep("do", 1),
    "wait": lambda step: step.wait_for_event("do", "garbage/never", timeout=1),
    "answered wait": answered,
    "send": lambda step: step.send_event("do", Event("garbage/heard")),
    "branches": lambda step: gathered(step, lambda number: step.run("do", echo, number)),
    "failed branches": lambda step: gathered(step, lambda number: step.run("do", fail, number, retries=0)),
    "invoking branches": lambda step: gathered(step, lambda number: step.invoke("do", leaf, number)),
    "waiting branches": lambda step: gathered(step, lambda number: step.sleep("do", number + 1)),
}


@function("garbage-step", retries=0)
async def one_step(ctx: Context[str]) -> str:
    with suppress(Exception):
        await STEPS[ctx.input](ctx.step)
    return "done"


@function("garbage-failing", retries=0)
async def failing(ctx: Context[str]) -> None:
    await STEPS[ctx.input](ctx.step)


@tool(effect="pure")
async def get_order(order_id: str) -> str:
    """Look up one order."""
    if order_id == "2":
        raise KeyError(order_id)
    return "x" * 100


def script() -> ScriptedModel:
    return ScriptedModel(*[call("get_order", order_id=str(turn)) for turn in range(4)], "Done.")


agent = Agent("garbage-agent", model=script(), instructions="", tools=[get_order])

FUNCTIONS: list[Function[Any, Any]] = [one_step, failing, leaf, broken, agent]


def opened(engine: str, folder: Path) -> ReplayBackend:
    if engine == "sqlite":
        return SQLiteBackend(folder / "runs.db", FUNCTIONS)
    return MemoryBackend(FUNCTIONS, evict="always" if engine == "evicted" else "never")


async def left_by(backend: ReplayBackend, what: Any, data: Any) -> Counter[str]:
    """What of ours, and of the code that was run, waits for the garbage collector after a run."""
    left: Counter[str] = Counter()
    for _ in range(2):  # the first time, something is looked up once a process
        gc.collect()
        gc.freeze()  # what is there already needs not be looked at again
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            with suppress(DurablyError):
                await backend.invoke(what, data)
            await asyncio.sleep(0)
            gc.collect()
            left = Counter(map(_named, gc.garbage))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            gc.unfreeze()
    del left[""]
    return left


def _named(found: object) -> str:
    kind = type(found)
    if kind.__name__ == "frame":
        code = found.f_code  # type: ignore[attr-defined]
        return f"frame of {code.co_qualname}" if "durably" in code.co_filename or "tests" in code.co_filename else ""
    return kind.__qualname__ if kind.__module__.startswith("durably") else ""


ENGINES = ["memory", "evicted", "sqlite"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("what", [one_step, failing], ids=["caught", "failing"])
async def test_a_step_leaves_no_garbage(
    what: Any, kind: str, engine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "durably")  # a record of a failure has its error
    if engine == "sqlite" and kind in ("wait", "sleep", "waiting branches"):
        pytest.skip("real time: the same scheduler is tested in virtual time")
    async with opened(engine, tmp_path) as backend:
        assert await left_by(backend, what, kind) == {}


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_agent_leaves_no_garbage(engine: str, tmp_path: Path) -> None:
    async with opened(engine, tmp_path) as backend:
        assert await left_by(backend, agent, "Look up every order.") == {}
