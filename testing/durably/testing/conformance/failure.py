"""C10, C11, C12 and C15: attempts, who makes them, and what the caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durably.core import (
    Context,
    FailedRun,
    InvokeError,
    NonRetriableError,
    RetryAfterError,
    RetryPolicy,
    StepError,
    StepTimeoutError,
    current_step,
    function,
)
from durably.testing.conformance.subject import Subject, at, nth
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


class _Body:
    """A body that fails so many times and notes when it ran."""

    def __init__(self, fail: Callable[[int], None], now: Callable[[], float] = lambda: 0.0) -> None:
        self.fail = fail
        self.now = now
        self.attempts: list[int] = []
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.attempts.append(current_step().attempt)
        self.times.append(self.now())
        self.fail(len(self.attempts))
        return "done"

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def _always(error: Exception) -> Callable[[int], None]:
    def fail(count: int) -> None:
        raise error

    return fail


@clause
async def test_c10_a_step_has_one_attempt_more_than_retries(subject: Subject) -> None:
    bodies = [_Body(_always(ConnectionError("down"))) for _ in range(3)]

    @function("tries", retries=2)
    async def tries(ctx: Context[None]) -> list[int]:
        attempts = []
        for body, retries in zip(bodies, (None, 0, 1), strict=True):
            try:
                await ctx.step.run("work", body, retries=retries)
            except StepError as error:
                attempts.append(error.attempts)
        return attempts

    result, _ = await subject.run(tries)
    assert result == [3, 1, 2]
    assert [body.attempts for body in bodies] == [[1, 2, 3], [1], [1, 2]]


@clause
async def test_c10_three_retries_are_the_default(subject: Subject) -> None:
    body = _Body(_always(ConnectionError("down")))

    @function("default", retry_policy=RetryPolicy(initial=0.01))
    async def default(ctx: Context[None]) -> str:
        return await ctx.step.run("work", body)

    await subject.fail(default)
    assert body.attempts == [1, 2, 3, 4]


@clause
async def test_c10_delays_grow_and_are_never_cut_short(subject: Subject) -> None:
    unit = subject.unit
    body = _Body(_always(ConnectionError("down")))

    @function("patient", retries=3, retry_policy=RetryPolicy(initial=unit, factor=2, maximum=3 * unit, jitter=0.5))
    async def patient(ctx: Context[None]) -> None:
        await ctx.step.run("work", body)

    async with subject.open([patient]) as backend:
        body.now = lambda: subject.now(backend)
        await subject.until_ended(await backend.start(patient))
    assert len(body.gaps) == 3
    assert [gap >= least for gap, least in zip(body.gaps, (unit / 2, unit, 1.5 * unit), strict=True)] == [True] * 3


@clause
async def test_c10_retry_after_sets_the_next_delay(subject: Subject) -> None:
    unit = subject.unit

    def fail(count: int) -> None:
        if count == 1:
            raise RetryAfterError("busy", delay=2 * unit)

    body = _Body(fail)

    @function("told", retry_policy=RetryPolicy(initial=unit / 100, jitter=0))
    async def told(ctx: Context[None]) -> str:
        return await ctx.step.run("work", body)

    async with subject.open([told]) as backend:
        body.now = lambda: subject.now(backend)
        assert await backend.invoke(told) == "done"
    assert len(body.gaps) == 1
    assert body.gaps[0] >= 2 * unit


@clause
async def test_c10_a_non_retriable_error_ends_the_attempts(subject: Subject) -> None:
    body = _Body(_always(NonRetriableError("never")))

    @function("final", retries=5)
    async def final(ctx: Context[None]) -> None:
        await ctx.step.run("work", body)

    error, _ = await subject.fail(final)
    assert "never" in str(error)
    assert body.attempts == [1]


@clause
async def test_c10_attempts_are_counted_across_crashes(subject: Subject) -> None:
    body = _Body(_always(ConnectionError("down")))

    @function("counted", retries=2)
    async def counted(ctx: Context[None]) -> None:
        await ctx.step.run("work", body)

    for _ in range(2):
        assert await subject.crash(counted, where=at("before_body", "work", occurrence=1))
    error, history = await subject.fail(counted)
    assert len(body.attempts) == 3, "a crash gives no new attempts"
    assert isinstance(error, InvokeError)
    assert (history.steps()[0].error or {})["attempts"] == 3


@clause
async def test_c10_a_timeout_is_a_failed_attempt_and_a_late_value_is_dropped(subject: Subject) -> None:
    calls: list[int] = []

    async def hang() -> str:
        calls.append(1)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "late"

    @function("hanging", retries=1)
    async def hanging(ctx: Context[None]) -> str:
        try:
            return await ctx.step.run("work", hang, timeout=0.01)
        except StepTimeoutError as error:
            return await ctx.step.run("told", _echo, error.step)

    result, _ = await subject.run(hanging)
    assert result == "work"
    assert len(calls) == 2


@clause
async def test_c11_the_caller_gets_a_step_error_and_the_same_on_replay(subject: Subject) -> None:
    body = _Body(_always(KeyError("no such order")))
    seen: list[tuple[Any, ...]] = []

    @function("caught", retries=1)
    async def caught(ctx: Context[None]) -> str:
        try:
            await ctx.step.run("find", body)
        except StepError as error:
            seen.append((type(error), error.step, error.attempts, error.error_type, error.message, str(error)))
        return await ctx.step.run("go-on", _echo, "went on")

    assert await subject.crash(caught, where=at("after_commit", "find"))
    assert await subject.crash(caught, where=at("before_body", "go-on"))
    result, _ = await subject.run(caught)
    assert result == "went on"
    assert len(body.attempts) == 2
    assert len(seen) >= 2
    assert set(seen) == {seen[0]}
    assert seen[0][:5] == (StepError, "find", 2, "KeyError", "'no such order'")


@clause
async def test_c11_a_group_of_errors_and_a_base_exception_end_as_step_errors(subject: Subject) -> None:
    class Stop(BaseException):
        pass

    async def group() -> None:
        raise ExceptionGroup("both", [ValueError("one"), TypeError("two")])

    async def stop() -> None:
        raise Stop("at once")

    @function("odd", retries=0)
    async def odd(ctx: Context[None]) -> list[str]:
        messages = []
        for body in (group, stop):
            try:
                await ctx.step.run("work", body)
            except StepError as error:
                messages.append(error.message)
        return messages

    result, _ = await subject.run(odd)
    assert "one" in result[0]
    assert "two" in result[0]
    assert "at once" in result[1]


@clause
async def test_c12_a_function_is_retried_and_then_fails(subject: Subject) -> None:
    passes: list[int] = []
    bodies: list[int] = []

    async def body() -> None:
        bodies.append(1)

    @function("broken", retries=2)
    async def broken(ctx: Context[None]) -> None:
        await ctx.step.run("work", body)
        passes.append(ctx.attempt)
        raise ConnectionError("outside any step")

    error, history = await subject.fail(broken)
    assert isinstance(error, InvokeError)
    assert (error.error_type, error.message) == ("ConnectionError", "outside any step")
    assert sorted(set(passes)) == [1, 2, 3]
    assert bodies == [1]
    assert history.status == "failed"


@clause
async def test_c12_function_attempts_are_counted_across_crashes(subject: Subject) -> None:
    passes: list[int] = []

    @function("broken", retries=1)
    async def broken(ctx: Context[None]) -> None:
        passes.append(ctx.attempt)
        await ctx.step.run("work", _echo, 1)
        raise ConnectionError("outside any step")

    assert await subject.crash(broken, where=at("before_first", occurrence=1))
    assert await subject.crash(broken, where=at("before_result"))
    error, history = await subject.fail(broken)
    assert isinstance(error, InvokeError)
    assert passes == sorted(passes), "a crash gives no new attempts"
    assert max(passes) == 2
    assert [record.status for record in history if not record.key] == ["started", "retrying", "failed"]


@clause
async def test_c12_on_failure_runs_once(subject: Subject) -> None:
    failures: dict[str, list[FailedRun]] = {}
    ids: dict[str, set[str]] = {}

    async def clean_up(ctx: Context[FailedRun]) -> None:
        failures.setdefault(ctx.input.run_id, []).append(ctx.input)
        ids.setdefault(ctx.input.run_id, set()).add(ctx.run_id)

    @function("doomed", retries=0, on_failure=clean_up)
    async def doomed(ctx: Context[str]) -> None:
        await ctx.step.run("work", _echo, 1)
        raise ConnectionError("doomed")

    number = 0
    crashed = True
    while crashed:
        run = subject.run_id(number)
        crashed = await subject.crash(doomed, data="order-7", number=number, where=nth(number)) is not None
        async with subject.open([doomed]) as backend:
            await subject.until_ended(await backend.start(doomed, "order-7", run_id=run))
            await subject.until(lambda run=run: run in failures)  # type: ignore[misc]
        assert len(ids[run]) == 1, "one run of the failure handler, wherever the crash was"
        assert len(failures[run]) <= 1 + crashed
        assert failures[run][0].error["message"] == "doomed"
        assert failures[run][0].event.data == "order-7"
        number += 1
    assert number > 4


@clause
async def test_c12_code_may_fail_before_it_comes_by_its_steps_again(subject: Subject) -> None:
    bodies: list[str] = []

    async def body(name: str) -> str:
        bodies.append(name)
        return name

    @function("early", retries=2, retry_policy=RetryPolicy(initial=subject.unit / 4, jitter=0))
    async def early(ctx: Context[None]) -> str:
        if ctx.attempt == 2:
            raise ConnectionError("before all steps")
        await ctx.step.run("a", body, "a")
        if ctx.attempt == 1:
            raise ConnectionError("behind a step")
        return await ctx.step.run("b", body, "b")

    result, _ = await subject.run(early)
    assert result == "b"
    assert bodies == ["a", "b"]


@clause
async def test_c12_code_that_fails_behind_a_gather_is_tried_again(subject: Subject) -> None:
    @function("child")
    async def child(ctx: Context[None]) -> str:
        return "child"

    @function("behind", retries=2, retry_policy=RetryPolicy(initial=subject.unit / 4, jitter=0))
    async def behind(ctx: Context[None]) -> list[Any]:
        both = await ctx.step.gather(lambda: ctx.step.invoke("call", child), lambda: ctx.step.sleep("nap", 0))
        if ctx.attempt < 3:
            raise ConnectionError(f"attempt {ctx.attempt}")
        return [*both, ctx.attempt]

    result, _ = await subject.run(behind, child)
    assert result == ["child", None, 3]


@clause
async def test_c15_nobody_retries_below_the_engine(subject: Subject) -> None:
    errors = (ConnectionError("reset"), TimeoutError("slow"), OSError("busy"), ConnectionRefusedError("closed"))
    bodies = [_Body(_always(error)) for error in errors]

    @function("single", retries=0)
    async def single(ctx: Context[None]) -> int:
        failed = 0
        for body in bodies:
            try:
                await ctx.step.run("work", body)
            except StepError as error:
                failed += error.attempts
        return failed

    result, history = await subject.run(single)
    assert result == len(errors)
    assert [body.attempts for body in bodies] == [[1]] * len(errors)
    assert [record.attempt for record in history.steps()] == [1] * len(errors)
