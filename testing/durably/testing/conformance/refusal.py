"""C13 and C14: what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from durably.core import Context, Function, InvokeError, SerializationError, function
from durably.core.errors import NestedStepError, PayloadTooLargeError
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


def _lambda() -> Any:
    return lambda: None


def _nan() -> float:
    return float("nan")


def _cycle() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _wrong_type() -> int:
    return "seven"  # type: ignore[return-value]


def _poisoned(poison: Callable[[], Any], calls: list[int]) -> Function[None, None]:
    def body() -> Any:
        calls.append(1)
        return poison()

    @function("poisoned", retries=5)
    async def poisoned(ctx: Context[None]) -> None:
        await ctx.step.run("make", body, output_type=int if poison is _wrong_type else None)

    return poisoned


@clause
async def test_c13_a_value_without_json_fails_the_step_at_once(subject: Subject) -> None:
    for number, poison in enumerate((_lambda, _nan, _cycle, _wrong_type)):
        calls: list[int] = []

        error, _ = await subject.fail(_poisoned(poison, calls), number=number)
        assert isinstance(error, InvokeError)
        assert error.error_type == SerializationError.__name__, poison
        assert "make" in str(error), "it names the step"
        assert calls == [1], f"{poison}: a poison value is not tried again"


@clause
async def test_c13_a_value_over_the_limit_fails_the_step_at_once(subject: Subject) -> None:
    calls: list[int] = []
    seen: list[tuple[str, int, int]] = []

    def make(size: int) -> str:
        calls.append(size)
        return "x" * size

    @function("large", retries=5)
    async def large(ctx: Context[None]) -> int:
        fits = await ctx.step.run("make", make, 998)
        try:
            await ctx.step.run("make", make, 999)
        except PayloadTooLargeError as error:
            seen.append((error.step, error.size, error.limit))
        return await ctx.step.run("count", len, fits)

    assert await subject.crash(large, where=at("before_body", "count"), max_payload_bytes=1000)
    result, _ = await subject.run(large, max_payload_bytes=1000)
    assert result == 998
    assert calls == [998, 999]
    assert set(seen) == {("make:1", 1001, 1000)}
    assert len(seen) >= 2


@clause
async def test_c13_a_result_that_cannot_be_kept_ends_the_run(subject: Subject) -> None:
    results: list[Any] = [object(), "x" * 2000, float("inf")]
    passes: list[int] = []

    @function("unkept", retries=3)
    async def unkept(ctx: Context[int]) -> Any:
        passes.append(ctx.input)
        return results[ctx.input]

    for number in range(3):
        error, _ = await subject.fail(unkept, data=number, number=number, max_payload_bytes=1000)
        assert isinstance(error, InvokeError)
        assert error.error_type in ("SerializationError", "PayloadTooLargeError")
    assert passes == [0, 1, 2]


@clause
async def test_c13_arguments_without_json_fail_before_the_body(subject: Subject) -> None:
    calls: list[int] = []

    async def body(value: Any) -> None:
        calls.append(1)

    @function("arguments", retries=3)
    async def arguments(ctx: Context[None]) -> None:
        await ctx.step.run("use", body, object())

    error, _ = await subject.fail(arguments)
    assert isinstance(error, InvokeError)
    assert error.error_type == SerializationError.__name__
    assert not calls


@clause
async def test_c14_a_step_inside_a_body_is_refused(subject: Subject) -> None:
    inner: list[int] = []

    async def body() -> None:
        inner.append(1)

    @function("nested", retries=3)
    async def nested(ctx: Context[None]) -> str:
        async def outer() -> str:
            with_step: list[str] = []
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: ctx.step.run("inner", body),
                lambda: ctx.step.sleep("inner", 0),
                lambda: ctx.step.send_event("inner"),
                lambda: ctx.step.gather(),
            ]
            for call in calls:
                try:
                    await call()
                except NestedStepError as error:
                    with_step.append(error.inside)
            return " ".join(with_step)

        return await ctx.step.run("outer", outer)

    result, history = await subject.run(nested)
    assert result == "outer outer outer outer"
    assert not inner
    assert [record.key for record in history.steps()] == ["outer"]


@clause
async def test_c14_a_nested_step_fails_the_run_without_retries(subject: Subject) -> None:
    calls: list[int] = []

    @function("nested", retries=3)
    async def nested(ctx: Context[None]) -> None:
        async def outer() -> None:
            calls.append(1)
            await ctx.step.run("inner", _echo, 1)

        await ctx.step.run("outer", outer)

    error, _ = await subject.fail(nested)
    assert "inner" in str(error)
    assert "outer" in str(error)
    assert calls == [1]
