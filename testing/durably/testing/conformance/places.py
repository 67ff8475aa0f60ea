"""Clauses that speak of code, wherever it stands: in the function itself, in a branch, in a branch of a branch, and in
a function that is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from durably.core import Context, Function, RetryPolicy, StepError, current_step, function
from durably.core.errors import ConcurrentStepError, NestedStepError, NonDeterminismError, StepCancelledError
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause

PLACES = {
    "root": "",
    "branch": "gather[0]/",
    "branch of a branch": "gather[0]/gather[1]/",
    "function tried again": "",
}
"""Where code may stand, and what the keys of its steps begin with there."""

Code = Callable[[Context[Any]], Awaitable[Any]]

PlacedTest = Callable[[Subject, str], Awaitable[None]]


def _in_each_place(test: PlacedTest) -> PlacedTest:
    """Add a test to the suite for each place."""
    for place in PLACES:

        def placed(subject: Subject, place: str = place) -> Awaitable[None]:
            return test(subject, place)

        placed.__name__ = placed.__qualname__ = f"{test.__name__}_{place.replace(' ', '_')}"
        placed.__doc__ = test.__doc__
        globals()[placed.__name__] = clause(placed)
    return test


def _placed(code: Code, place: str, unit: float) -> Function[Any, Any]:
    """A function that runs some code in one place. Tried again, it comes by the steps of its first attempt before."""
    again = place == "function tried again"
    policy = RetryPolicy(initial=unit / 4, jitter=0)

    @function("placed", retries=int(again), retry_policy=policy)
    async def placed(ctx: Context[None]) -> Any:
        async def run() -> Any:
            return await code(ctx)

        async def inner() -> Any:
            return (await ctx.step.gather(lambda: ctx.step.run("beside", len, "x"), run))[1]

        if again:
            await ctx.step.run("first", len, "x")
            if ctx.attempt == 1:
                raise ConnectionError("once")
        if place == "branch":
            return (await ctx.step.gather(run, lambda: ctx.step.run("beside", len, "x")))[0]
        if place == "branch of a branch":
            return (await ctx.step.gather(inner, lambda: ctx.step.run("beside", len, "x")))[0]
        return await run()

    return placed


async def _crashed(subject: Subject, code: Code, place: str, point: str, key: str) -> None:
    """Crash code in one place, at a point of one of its steps, and run it to its end."""
    placed = _placed(code, place, subject.unit)
    assert await subject.crash(placed, where=at(point, f"{PLACES[place]}{key}"))
    await subject.run(placed)


def _pair() -> tuple[int, str]:
    return 2**60 + 1, "é"


@_in_each_place
async def test_c03_a_committed_body_never_runs_again_in_the(subject: Subject, place: str) -> None:
    bodies: list[str] = []

    async def body(name: str) -> None:
        bodies.append(name)

    async def code(ctx: Context[Any]) -> None:
        await ctx.step.run("a", body, "a")
        await ctx.step.run("last", body, "last")

    await _crashed(subject, code, place, "before_body", "last")
    assert bodies == ["a", "last"]


@_in_each_place
async def test_c04_the_replay_sees_equal_values_in_the(subject: Subject, place: str) -> None:
    seen: list[Any] = []

    async def code(ctx: Context[Any]) -> None:
        seen.append(await ctx.step.run("get", _pair))
        await ctx.step.run("last", len, "x")

    await _crashed(subject, code, place, "before_body", "last")
    assert len(seen) > 1
    assert [repr(each) for each in seen] == [repr(_pair())] * len(seen)


@_in_each_place
async def test_c05_an_execution_has_its_own_attempt_and_key_in_the(subject: Subject, place: str) -> None:
    seen: list[tuple[int, str]] = []

    async def body() -> None:
        step = current_step()
        seen.append((step.attempt, step.idempotency_key))

    async def code(ctx: Context[Any]) -> None:
        await ctx.step.run("work", body)

    await _crashed(subject, code, place, "after_effect", "work")
    assert [attempt for attempt, _ in seen] == [1, 2]
    assert len({key for _, key in seen}) == 1


@_in_each_place
async def test_c09_changed_code_is_noticed_in_the(subject: Subject, place: str) -> None:
    effects: list[str] = []

    async def body(name: str) -> None:
        effects.append(name)

    async def old(ctx: Context[Any]) -> None:
        await ctx.step.run("a", body, "a")
        await ctx.step.run("b", body, "b")

    async def renamed(ctx: Context[Any]) -> None:
        await ctx.step.run("x", body, "x")
        await ctx.step.run("b", body, "b")

    async def ended(ctx: Context[Any]) -> None:
        pass

    prefix = PLACES[place]
    for offset, new in ((0, renamed), (1, ended)):
        effects.clear()
        before, after = _placed(old, place, subject.unit), _placed(new, place, subject.unit)
        assert await subject.crash(before, number=offset, where=at("before_body", f"{prefix}b"))
        error, history = await subject.fail(after, number=offset)
        found = history[-1].error or {}
        assert found["type"] == NonDeterminismError.__name__, f"{new.__name__}: {error}"
        assert found["step"] == f"{prefix}a", new.__name__
        assert effects == ["a"], f"{new.__name__}: it must be noticed before any new effect"


@_in_each_place
async def test_c11_a_step_error_is_the_same_on_replay_in_the(subject: Subject, place: str) -> None:
    seen: list[tuple[str, str, int]] = []

    async def body() -> None:
        raise ValueError("no")

    async def code(ctx: Context[Any]) -> None:
        try:
            await ctx.step.run("bad", body, retries=0)
        except StepError as error:
            seen.append((error.step, str(error), error.attempts))
        await ctx.step.run("last", len, "x")

    await _crashed(subject, code, place, "before_body", "last")
    assert len(seen) > 1
    assert set(seen) == {seen[0]}
    assert seen[0][0] == f"{PLACES[place]}bad"


@_in_each_place
async def test_c14_a_step_inside_a_body_is_refused_in_the(subject: Subject, place: str) -> None:
    ran: list[int] = []

    async def code(ctx: Context[Any]) -> None:
        async def body() -> None:
            await ctx.step.run("inner", ran.append, 1)

        await ctx.step.run("outer", body, retries=2)

    prefix = PLACES[place]
    _, history = await subject.fail(_placed(code, place, subject.unit))
    found = next(record.error or {} for record in history if record.key == f"{prefix}outer" and record.final)
    assert found["error_type"] == NestedStepError.__name__
    assert not ran


@_in_each_place
async def test_c18_steps_begun_at_once_are_refused_in_the(subject: Subject, place: str) -> None:
    async def code(ctx: Context[Any]) -> None:
        both = ctx.step.run("one", len, "x"), ctx.step.run("two", len, "x")
        await asyncio.gather(*both, return_exceptions=True)

    _, history = await subject.fail(_placed(code, place, subject.unit))
    assert (history[-1].error or {})["type"] == ConcurrentStepError.__name__


@_in_each_place
async def test_c27_a_timeout_around_a_step_is_refused_in_the(subject: Subject, place: str) -> None:
    async def slow() -> None:
        await asyncio.sleep(20)

    async def code(ctx: Context[Any]) -> str:
        try:
            async with asyncio.timeout(0.1):
                await ctx.step.run("slow", slow)
        except Exception:
            return "went on"
        return "in time"

    prefix = PLACES[place]
    _, history = await subject.fail(_placed(code, place, subject.unit))
    found = history[-1].error or {}
    assert (found["type"], found["step"]) == (StepCancelledError.__name__, f"{prefix}slow")
