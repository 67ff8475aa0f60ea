"""C10, C12 and C25: how long it takes until the next attempt, and what happens only when there is none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

from durably.core import Backend, Context, FailedRun, Function, RetryAfterError, RetryPolicy, function
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill, Subject
from durably.testing.conformance.suite import RefusedError, clause


class _Tries:
    """A body that fails with these errors, one after another, and notes when it began."""

    def __init__(self, now: Callable[[], float], *errors: Exception) -> None:
        self._now = now
        self._errors = errors
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(self._now())
        if len(self.times) <= len(self._errors):
            raise self._errors[len(self.times) - 1]
        return "done"

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.times)]


@clause
async def test_c10_retry_after_sets_the_next_delay_alone_and_may_shorten_it(subject: Subject) -> None:
    unit = subject.unit

    @function("told", retries=2, retry_policy=RetryPolicy(initial=unit, factor=1, jitter=0))
    async def told(ctx: Context[None]) -> str:
        return await ctx.step.run("work", body)

    async with subject.open([told]) as backend:
        errors = RetryAfterError("soon", delay=unit / 10), ConnectionError("down")
        body = _Tries(lambda: subject.now(backend), *errors)
        assert await backend.invoke(told) == "done"
    shortened, ordinary = body.gaps
    assert shortened < 0.9 * unit, "the delay that was asked for, although the policy says a longer one"
    assert ordinary >= unit, "the next failure is waited for as the policy says"


@clause
async def test_c10_jitter_spreads_the_attempts_of_steps_that_failed_together(subject: Subject) -> None:
    unit = subject.unit

    @function("spread", retries=1, retry_policy=RetryPolicy(initial=unit, factor=1, jitter=1))
    async def spread(ctx: Context[None]) -> None:
        await ctx.step.gather(*[lambda each=each: ctx.step.run("work", each) for each in bodies])

    async with subject.open([spread]) as backend:
        bodies = [_Tries(lambda: subject.now(backend), ConnectionError("down")) for _ in range(8)]
        await backend.invoke(spread)
    gaps = [gap for body in bodies for gap in body.gaps]
    assert len(gaps) == len(bodies)
    assert max(gaps) - min(gaps) > unit / 10, f"all came back together: {gaps}"


@clause
async def test_c10_a_crash_does_not_shorten_the_delay_before_an_attempt(subject: Subject) -> None:
    unit = subject.unit
    workers: list[Backend] = []
    body = _Tries(lambda: subject.now(workers[-1]), RetryAfterError("busy", delay=4 * unit))

    @function("delayed", retries=1)
    async def delayed(ctx: Context[None]) -> None:
        async def beside() -> None:
            await ctx.step.sleep("nap", unit)
            await ctx.step.run("beside", len, "x")

        await ctx.step.gather(lambda: ctx.step.run("work", body), beside)

    await _die_at(subject, workers, "gather[1]/beside", delayed)
    async with subject.open([delayed]) as backend:
        workers.append(backend)
        await (await backend.run(subject.run_id())).result()
    assert len(body.gaps) == 1
    assert body.gaps[0] >= 4 * unit


@clause
async def test_c12_a_crash_does_not_shorten_the_delay_before_an_attempt_of_a_function(subject: Subject) -> None:
    unit = subject.unit
    workers: list[Backend] = []
    passes: list[tuple[int, float]] = []

    @function("delayed", retries=1)
    async def delayed(ctx: Context[None]) -> None:
        passes.append((ctx.attempt, subject.now(workers[-1])))
        if ctx.attempt == 1:
            raise RetryAfterError("busy", delay=4 * unit)

    @function("dying")
    async def dying(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", unit)
        await ctx.step.run("beside", len, "x")

    await _die_at(subject, workers, "beside", dying, delayed)
    async with subject.open([delayed]) as backend:
        workers.append(backend)
        await (await backend.run(subject.run_id(1))).result()
    first = next(at for attempt, at in passes if attempt == 1)
    assert all(at >= first + 4 * unit for attempt, at in passes if attempt == 2)
    assert passes[-1][0] == 2


async def _die_at(subject: Subject, workers: list[Backend], key: str, *functions: Function[Any, Any]) -> None:
    """Start functions, and let the worker die before the body of a step of the first one."""

    def dies(point: Point) -> None:
        if (point.name, point.key) == ("before_body", key):
            raise Kill

    async with subject.open(functions) as backend:
        workers.append(backend)
        backend.probe = dies
        with suppress(Kill):
            runs = [await backend.start(each, run_id=subject.run_id(number)) for number, each in enumerate(functions)]
            await runs[0].result()


@clause
async def test_c12_on_failure_runs_for_nothing_but_the_failure_of_the_run(subject: Subject) -> None:
    handled: list[tuple[str, int]] = []
    attempts: dict[str, int] = {}

    async def clean_up(ctx: Context[FailedRun]) -> None:
        handled.append((ctx.input.event.data, attempts[ctx.input.event.data]))

    @function("risky", retries=1, retry_policy=RetryPolicy(initial=subject.unit / 10, jitter=0), on_failure=clean_up)
    async def risky(ctx: Context[str]) -> None:
        attempts[ctx.input] = ctx.attempt
        if ctx.input == "cancelled":
            await ctx.step.sleep("nap", 10 * subject.unit)
        if ctx.input == "doomed" or ctx.attempt == 1:
            raise ConnectionError("as asked")

    async with subject.open([risky]) as backend:
        for number, data in enumerate(("recovers", "cancelled", "doomed")):
            run = await backend.start(risky, data, run_id=subject.run_id(number))
            if data == "cancelled":
                await subject.until(lambda: "cancelled" in attempts)
                await run.cancel()
            await subject.until_ended(run)
        await subject.until(lambda: ("doomed", 2) in handled)
    assert handled == [("doomed", 2)], "not between attempts, and not for a run that ended otherwise"


@clause
async def test_c25_a_run_that_does_not_come_further_is_taken_up_after_a_growing_pause(subject: Subject) -> None:
    if subject.unit < 60:
        raise RefusedError("pauses are seconds, and this subject's time is real")
    workers: list[Backend] = []
    begun: list[float] = []

    async def body() -> None:
        begun.append(subject.now(workers[-1]))

    @function("crashing", crash_limit=9)
    async def crashing(ctx: Context[None]) -> None:
        await ctx.step.run("boom", body)

    def dies(point: Point) -> None:
        if (point.name, point.key) == ("after_effect", "boom"):
            raise Kill

    for _ in range(5):
        async with subject.open([crashing]) as backend:
            workers.append(backend)
            backend.probe = dies
            with suppress(Kill):
                await (await backend.start(crashing, run_id=subject.run_id())).result()
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert len(pauses) == 4
    assert pauses == sorted(set(pauses)), f"each is longer than the one before: {pauses}"
