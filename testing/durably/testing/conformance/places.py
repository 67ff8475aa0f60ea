"""Clauses that speak of code, wherever it stands: in the function itself, in a branch, in a branch of a branch, in a
function that is tried again, and in a run that has gone on in a fresh history, where an engine has such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from durably.core import Context, Event, Function, RetryPolicy, StepError, current_step, function
from durably.core.errors import ConcurrentStepError, NestedStepError, NonDeterminismError, StepCancelledError
from durably.core.history import History
from durably.testing.conformance.subject import Subject, at, heard
from durably.testing.conformance.suite import RefusedError, clause

PLACES = {
    "root": "",
    "branch": "gather[0]/",
    "branch of a branch": "gather[0]/gather[1]/",
    "function tried again": "",
    "fresh history": "",
}
"""Where code may stand, and what the keys of its steps begin with there."""

Code = Callable[[Context[Any]], Awaitable[Any]]

PlacedTest = Callable[[Subject, "Place"], Awaitable[None]]


class Place:
    """Where a test's code stands, and how a subject runs it there.

    Args:
        name: One of :data:`PLACES`.
        subject: Who runs it.

    Raises:
        RefusedError: If the subject has no such place.
    """

    def __init__(self, name: str, subject: Subject) -> None:
        self.prefix = PLACES[name]
        self._name = name
        self._subject = subject
        self._options: dict[str, Any] = {}
        if name == "fresh history":
            if subject.short_histories is None:
                raise RefusedError("a run of this engine has one history only")
            self._options = dict(subject.short_histories)

    def function(self, code: Code) -> Function[Any, Any]:
        """A function that runs some code here. Where it was in another place before, it comes by a step of that."""
        name = self._name
        again = name == "function tried again"
        policy = RetryPolicy(initial=self._subject.unit / 4, jitter=0)

        @function("placed", retries=int(again), retry_policy=policy)
        async def placed(ctx: Context[None]) -> Any:
            async def run() -> Any:
                return await code(ctx)

            async def inner() -> Any:
                return (await ctx.step.gather(lambda: ctx.step.run("beside", len, "x"), run))[1]

            if again or name == "fresh history":
                await ctx.step.run("first", len, "x")
            if again and ctx.attempt == 1:
                raise ConnectionError("once")
            if name == "branch":
                return (await ctx.step.gather(run, lambda: ctx.step.run("beside", len, "x")))[0]
            if name == "branch of a branch":
                return (await ctx.step.gather(inner, lambda: ctx.step.run("beside", len, "x")))[0]
            return await run()

        return placed

    async def run(self, code: Code, *others: Function[Any, Any]) -> History:
        """Run code to its end, or go on with it."""
        _, history = await self._subject.run(self.function(code), *others, **self._options)
        await self._check()
        return history

    async def fail(self, code: Code, number: int = 0) -> tuple[Exception, History]:
        """Run code that must fail: its error and its records."""
        found = await self._subject.fail(self.function(code), number=number, **self._options)
        await self._check(number)
        return found

    async def crash(self, code: Code, *others: Function[Any, Any], point: str, key: str, number: int = 0) -> None:
        """Run code up to a point of one of its steps, and crash there."""
        where = at(point, f"{self.prefix}{key}")
        assert await self._subject.crash(self.function(code), *others, where=where, number=number, **self._options)

    async def _check(self, number: int = 0) -> None:
        """The code did stand where it was to stand."""
        if self._options:
            histories = await self._subject.histories(self._subject.run_id(number))
            assert histories > 1, "the run has not gone on in a fresh history"


def _in_each_place(test: PlacedTest) -> PlacedTest:
    """Add a test to the suite for each place."""
    for place in PLACES:

        async def placed(subject: Subject, place: str = place) -> None:
            await test(subject, Place(place, subject))

        placed.__name__ = placed.__qualname__ = f"{test.__name__}_{place.replace(' ', '_')}"
        placed.__doc__ = test.__doc__
        globals()[placed.__name__] = clause(placed)
    return test


async def _crash_and_go_on(place: Place, code: Code, *others: Function[Any, Any], point: str, key: str) -> None:
    """Crash code at a point of one of its steps, and run it to its end."""
    await place.crash(code, *others, point=point, key=key)
    await place.run(code, *others)


def _pair() -> tuple[int, str]:
    return 2**60 + 1, "é"


@_in_each_place
async def test_c03_a_committed_body_never_runs_again_in_the(subject: Subject, place: Place) -> None:
    bodies: list[str] = []

    async def body(name: str) -> None:
        bodies.append(name)

    async def code(ctx: Context[Any]) -> None:
        await ctx.step.run("a", body, "a")
        await ctx.step.run("last", body, "last")

    await _crash_and_go_on(place, code, point="before_body", key="last")
    assert bodies == ["a", "last"]


@_in_each_place
async def test_c04_the_replay_sees_equal_values_in_the(subject: Subject, place: Place) -> None:
    seen: list[Any] = []

    async def code(ctx: Context[Any]) -> None:
        seen.append(await ctx.step.run("get", _pair))
        await ctx.step.run("last", len, "x")

    await _crash_and_go_on(place, code, point="before_body", key="last")
    assert len(seen) > 1
    assert [repr(each) for each in seen] == [repr(_pair())] * len(seen)


@_in_each_place
async def test_c05_an_execution_has_its_own_attempt_and_key_in_the(subject: Subject, place: Place) -> None:
    seen: list[tuple[int, str]] = []

    async def body() -> None:
        step = current_step()
        seen.append((step.attempt, step.idempotency_key))

    async def code(ctx: Context[Any]) -> None:
        await ctx.step.run("work", body)

    await _crash_and_go_on(place, code, point="after_effect", key="work")
    (first, _), (second, _) = seen
    assert (first, second > first) == (1, True), "an attempt that never came to the body may have a number, too"
    assert len({key for _, key in seen}) == 1


@_in_each_place
async def test_c07_a_replay_does_and_says_nothing_again_in_the(subject: Subject, place: Place) -> None:
    done: list[str] = []

    async def body(name: str) -> None:
        done.append(name)

    @function("child")
    async def child(ctx: Context[None]) -> None:
        await ctx.step.run("inner", body, "child")

    @function("listener", triggers=["places/told"])
    async def listener(ctx: Context[Any]) -> None:
        await ctx.step.run("hear", body, "told")

    async def code(ctx: Context[Any]) -> None:
        await ctx.step.run("a", body, "a")
        ctx.logger.warning("c07 between two recorded steps")
        await ctx.step.run("b", body, "b")
        await ctx.step.invoke("call", child)
        await ctx.step.send_event("tell", Event("places/told", None))
        await ctx.step.sleep("nap", subject.unit / 4)
        await ctx.step.run("last", body, "last")

    with heard() as lines:
        await _crash_and_go_on(place, code, child, listener, point="before_body", key="last")
        async with subject.open([place.function(code), child, listener]):
            await subject.until(lambda: "told" in done)
    assert sorted(done) == ["a", "b", "child", "last", "told"]
    assert [line for line in lines if line.startswith("c07 ")] == ["c07 between two recorded steps"]


@_in_each_place
async def test_c10_a_body_has_all_its_attempts_in_the(subject: Subject, place: Place) -> None:
    seen: list[int] = []

    async def body() -> None:
        seen.append(current_step().attempt)
        raise ValueError("no")

    async def code(ctx: Context[Any]) -> None:
        try:
            await ctx.step.run("bad", body, retries=2)
        except StepError:
            await ctx.step.run("last", len, "x")

    await place.crash(code, point="before_body", key="last")
    history = await place.run(code)
    assert seen == [1, 2, 3]
    tried = [record.status for record in history if record.key == f"{place.prefix}bad" and record.kind == "step"]
    assert tried[-1] == "failed"
    assert set(tried[:-1]) <= {"retrying"}, "of attempts that another one followed, an engine may keep the last"


@_in_each_place
async def test_c09_changed_code_is_noticed_in_the(subject: Subject, place: Place) -> None:
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

    for offset, new in ((0, renamed), (1, ended)):
        effects.clear()
        await place.crash(old, point="before_body", key="b", number=offset)
        error, history = await place.fail(new, number=offset)
        found = history[-1].error or {}
        assert found["type"] == NonDeterminismError.__name__, f"{new.__name__}: {error}"
        assert found["step"] == f"{place.prefix}a", new.__name__
        assert effects == ["a"], f"{new.__name__}: it must be noticed before any new effect"


@_in_each_place
async def test_c11_a_step_error_is_the_same_on_replay_in_the(subject: Subject, place: Place) -> None:
    seen: list[tuple[str, str, int]] = []

    async def body() -> None:
        raise ValueError("no")

    async def code(ctx: Context[Any]) -> None:
        try:
            await ctx.step.run("bad", body, retries=0)
        except StepError as error:
            seen.append((error.step, str(error), error.attempts))
        await ctx.step.run("last", len, "x")

    await _crash_and_go_on(place, code, point="before_body", key="last")
    assert len(seen) > 1
    assert set(seen) == {seen[0]}
    assert seen[0][0] == f"{place.prefix}bad"


@_in_each_place
async def test_c14_a_step_inside_a_body_is_refused_in_the(subject: Subject, place: Place) -> None:
    ran: list[int] = []

    async def code(ctx: Context[Any]) -> None:
        async def body() -> None:
            await ctx.step.run("inner", ran.append, 1)

        await ctx.step.run("outer", body, retries=2)

    _, history = await place.fail(code)
    found = next(record.error or {} for record in history if record.key == f"{place.prefix}outer" and record.final)
    assert found["error_type"] == NestedStepError.__name__
    assert not ran


@_in_each_place
async def test_c18_steps_begun_at_once_are_refused_in_the(subject: Subject, place: Place) -> None:
    async def code(ctx: Context[Any]) -> None:
        both = ctx.step.run("one", len, "x"), ctx.step.run("two", len, "x")
        await asyncio.gather(*both, return_exceptions=True)

    _, history = await place.fail(code)
    assert (history[-1].error or {})["type"] == ConcurrentStepError.__name__


@_in_each_place
async def test_c27_a_timeout_around_a_step_is_refused_in_the(subject: Subject, place: Place) -> None:
    async def slow() -> None:
        await asyncio.sleep(20)

    async def code(ctx: Context[Any]) -> str:
        try:
            async with asyncio.timeout(0.1):
                await ctx.step.run("slow", slow)
        except Exception:
            return "went on"
        return "in time"

    _, history = await place.fail(code)
    found = history[-1].error or {}
    assert (found["type"], found["step"]) == (StepCancelledError.__name__, f"{place.prefix}slow")
