"""Bodies that misbehave, on both engines: they cost their own step at most, never the worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, Function, InvokeError, RunStatus, StepError, StepTimeoutError, function
from durably.testing.conformance.subject import Kill

pytestmark = pytest.mark.asyncio


class _Alarm(BaseException):
    pass


async def _raise_base() -> None:
    raise _Alarm("not an Exception")


async def _cancel_itself() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


async def _generator_exit() -> None:
    raise GeneratorExit


async def _stop_iteration() -> int:
    return next(iter([]))


@function("rude", retries=0)
async def rude(ctx: Context[None]) -> list[str]:
    types = []
    for body in (_raise_base, _cancel_itself, _generator_exit, _stop_iteration):
        try:
            await ctx.step.run("body", body)
        except StepError as error:
            types.append(error.step)
    return types


@function("polite")
async def polite(ctx: Context[None]) -> str:
    return await ctx.step.run("body", str.upper, "fine")


def _stubborn() -> str:
    gate.wait(20)
    return "late"


gate = threading.Event()
tasks: list[asyncio.Task[Any]] = []
calls: list[str] = []


async def _deaf() -> str:
    calls.append("deaf")
    end = time.monotonic() + 20
    while time.monotonic() < end and not gate.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            calls.append("swallowed")
    return "late"


@function("hanging", retries=1)
async def hanging(ctx: Context[None]) -> list[str]:
    found: list[str] = []
    bodies: list[Any] = [_stubborn, _deaf]
    for body in bodies:
        try:
            found.append(await ctx.step.run("body", body, timeout=0.02, retries=0))
        except StepTimeoutError as error:
            found.append(error.error_type)
    return found


async def _background() -> str:
    async def later() -> None:
        await asyncio.sleep(0)
        calls.append("later")
        raise ConnectionError("nobody listens")

    tasks.append(asyncio.ensure_future(later()))
    return "returned"


@function("spawning")
async def spawning(ctx: Context[None]) -> list[str]:
    async def nested() -> None:
        await ctx.step.run("inner", str.upper, "x")

    async def spawn() -> str:
        tasks.append(asyncio.ensure_future(nested()))
        await asyncio.sleep(0)
        return "spawned"

    return [await ctx.step.run("body", _background), await ctx.step.run("spawn", spawn)]


@function("escaped", retries=0)
async def escaped(ctx: Context[None]) -> None:
    raise _Alarm("outside any step")


@function("cancelling", retries=0)
async def cancelling(ctx: Context[None]) -> None:
    await ctx.step.gather(_cancel_itself, lambda: ctx.step.run("body", str.upper, "x"))


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ReplayBackend]:
    functions: list[Function[Any, Any]] = [rude, polite, hanging, spawning, escaped, cancelling]
    gate.clear()
    tasks.clear()
    calls.clear()
    made: ReplayBackend = MemoryBackend(functions)
    if request.param == "sqlite":
        made = SQLiteBackend(tmp_path / "runs.db", functions, clock=VirtualClock())
    async with made:
        yield made
    gate.set()


async def test_errors_that_are_not_exceptions_fail_their_step(backend: ReplayBackend) -> None:
    assert await backend.invoke(rude) == ["body", "body:1", "body:2", "body:3"]
    assert await backend.invoke(polite) == "FINE"


async def test_bodies_that_hang_are_left_behind(backend: ReplayBackend) -> None:
    run = await backend.start(hanging)
    assert await run.result() == ["TimeoutError", "TimeoutError"]
    before = await run.history()
    gate.set()
    await asyncio.sleep(0.05)
    assert await run.history() == before, "what comes late is dropped"
    assert calls[:2] == ["deaf", "swallowed"]


async def test_background_tasks_cannot_harm_a_run(backend: ReplayBackend) -> None:
    assert await backend.invoke(spawning) == ["returned", "spawned"]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each).__name__ for each in outcomes] == ["ConnectionError", "NestedStepError"]
    assert calls == ["later"]


async def test_a_base_exception_outside_a_step_ends_the_run_and_not_the_worker(backend: ReplayBackend) -> None:
    with pytest.raises(InvokeError, match="outside any step"):
        await backend.invoke(escaped)
    with pytest.raises(InvokeError, match="CancelledError"):
        await backend.invoke(cancelling)
    assert await backend.invoke(polite) == "FINE"


async def test_a_body_that_swallows_its_cancellation_does_not_survive_a_crash() -> None:
    begun = asyncio.Event()
    written: list[str] = []

    async def clinging() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            written.append("swallowed")
        return "late"

    @function("clinging")
    async def clings(ctx: Context[None]) -> str:
        value = await ctx.step.run("body", clinging)
        written.append("went on")
        return value

    backend = MemoryBackend([clings])
    async with backend:
        run = await backend.start(clings, run_id="r")
        await begun.wait()
        backend.crash(Kill())
        await asyncio.sleep(0.01)
    assert written == ["swallowed"]
    assert len(backend.journal.records(run.id)) == 1, "a dead worker writes nothing"
    row = backend.journal.get(run.id)
    assert row is not None
    assert row.status is RunStatus.RUNNING


async def test_bodies_in_branches_are_cut_off_with_their_worker() -> None:
    begun: list[str] = []
    cut_off: list[str] = []

    async def hang(name: str) -> None:
        begun.append(name)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut_off.append(name)
            raise

    @function("hanging")
    async def hanging(ctx: Context[None]) -> None:
        step = ctx.step
        await step.gather(lambda: step.run("left", hang, "left"), lambda: step.run("right", hang, "right"))

    backend = MemoryBackend([hanging])
    backend.drain_timeout = 0.01
    async with backend:
        await backend.start(hanging)
        while len(begun) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert sorted(cut_off) == ["left", "right"]
