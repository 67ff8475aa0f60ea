"""C27: what a body or a function raises ends as its own failure, and harms nobody else."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

from durably.core import Context, Function, StepError, function
from durably.core.errors import StepCancelledError
from durably.testing.conformance.subject import Subject
from durably.testing.conformance.suite import clause

HUGE = 9_000_000
"""Characters of an error's text: more than any engine takes."""

HUNG = 40
"""Bodies that hang: more than any engine has threads for."""


class MuteError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no str")


def _mute() -> None:
    raise MuteError


def _unwritable() -> None:
    raise ValueError("a\ud800b")


def _huge() -> None:
    raise ValueError("x" * HUGE)


def _group() -> None:
    raise ExceptionGroup("several", [MuteError(), ValueError("\ud800"), ValueError("y" * HUGE)])


def _noted() -> None:
    error = KeyError("k")
    error.add_note("a note \ud800")
    raise error


def _exhausted() -> None:
    next(iter([]))


def _exits() -> None:
    sys.exit(3)


async def _cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


RAISES: dict[str, Callable[[], Any]] = {
    "mute": _mute,
    "unwritable": _unwritable,
    "huge": _huge,
    "group": _group,
    "noted": _noted,
    "exhausted": _exhausted,
    "exits": _exits,
    "cancels itself": _cancels_itself,
}


async def _echo(value: Any) -> Any:
    return value


@function("healthy")
async def healthy(ctx: Context[None]) -> str:
    """The neighbour: it must not notice anything."""
    return await ctx.step.run("a", _echo, "healthy")


async def _ends(subject: Subject, bad: Function[Any, Any], data: Any = None) -> Any:
    """Run something bad beside something healthy, and open the storage again afterwards; the bad run's view."""
    async with subject.open([bad, healthy]) as backend:
        run = await backend.start(bad, data, run_id=subject.run_id(1))
        neighbour = await backend.start(healthy, run_id=subject.run_id(2))
        await run.ended()
        assert await neighbour.result() == "healthy", "a run harms its neighbour"
    async with subject.open([bad, healthy]) as backend:
        again = await backend.start(healthy, run_id=subject.run_id(3))
        assert await again.result() == "healthy", "the storage is taken up again"
        return (await backend.run(subject.run_id(1))).view


@clause
async def test_c27_whatever_a_body_raises_fails_its_step(subject: Subject) -> None:
    @function("bodies")
    async def bodies(ctx: Context[None]) -> list[str]:
        failed = []
        for name, raises in RAISES.items():
            try:
                await ctx.step.run("bad", raises, retries=0)
            except StepError as error:
                assert len(error.message) < HUGE / 100
                failed.append(name)
        return failed

    view = await _ends(subject, bodies)
    assert view.error is None, view.error
    for name in RAISES:
        assert name in view.output, f"a body that {name} must fail its step, and no more"


@clause
async def test_c27_whatever_a_function_raises_fails_its_run(subject: Subject) -> None:
    @function("raising", retries=0)
    async def raising(ctx: Context[str]) -> None:
        if ctx.input == "closes":
            raise GeneratorExit
        value = RAISES[ctx.input]()
        if value is not None:
            await value

    for number, name in enumerate([*RAISES, "closes"]):
        async with subject.open([raising, healthy]) as backend:
            run = await backend.start(raising, name, run_id=subject.run_id(10 + number))
            await run.ended()
            assert run.status.value == "failed", f"code that {name} must fail its run"
            assert len(str(run.view.error)) < HUGE / 100
    assert (await subject.run(healthy, number=3))[0] == "healthy"


@clause
async def test_c27_a_failed_attempt_with_any_error_is_tried_again(subject: Subject) -> None:
    tries: list[str] = []

    def body() -> str:
        tries.append("x")
        if len(tries) < 3:
            _mute() if len(tries) < 2 else _exits()
        return "third"

    @function("again", retries=0)
    async def again(ctx: Context[None]) -> str:
        return await ctx.step.run("a", body, retries=3)

    view = await _ends(subject, again)
    assert (view.error, view.output, len(tries)) == (None, '"third"', 3)


@clause
async def test_c27_bodies_that_hang_leave_threads_for_others(subject: Subject) -> None:
    free = threading.Event()

    def hang() -> None:
        free.wait(30)

    def quick() -> str:
        return "quick"

    @function("hanging")
    async def hanging(ctx: Context[None]) -> str:
        async def branch() -> str:
            try:
                await ctx.step.run("hang", hang, retries=0, timeout=0.2)
            except StepError as error:
                return error.error_type
            return "it ended"

        ends = await ctx.step.gather(*[branch for _ in range(HUNG)])
        # Its time counts from when it begins: that it had to wait for a thread is not its own fault.
        ends = (*ends, await ctx.step.run("quick", quick, retries=0, timeout=5))
        return ",".join(sorted(set(ends)))

    try:
        view = await _ends(subject, hanging)
        assert await asyncio.wait_for(asyncio.to_thread(quick), 5) == "quick", "other users of threads go on"
    finally:
        free.set()
    assert (view.error, view.output) == (None, '"TimeoutError,quick"')


@clause
async def test_c27_a_timeout_around_a_step_is_refused(subject: Subject) -> None:
    async def slow() -> None:
        await asyncio.sleep(20)

    @function("impatient", retries=3)
    async def impatient(ctx: Context[None]) -> str:
        try:
            async with asyncio.timeout(0.2):
                await ctx.step.run("slow", slow)
        except Exception:
            return "went on"
        return "in time"

    view = await _ends(subject, impatient)
    assert view.error is not None, view.output
    assert (view.error["type"], view.error["step"]) == (StepCancelledError.__name__, "slow")
