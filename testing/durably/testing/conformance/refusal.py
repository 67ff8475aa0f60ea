"""C13 and C14: what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from durably.core import Context, Event, FailedRun, Function, InvokeError, SerializationError, StepAPI, function
from durably.core.errors import NestedStepError, PayloadTooLargeError
from durably.testing.conformance.subject import Subject, at, keys
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


def _nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


@clause
async def test_c13_a_value_nested_too_deep_fails_the_step_at_once(subject: Subject) -> None:
    calls: list[int] = []
    told: list[Any] = []

    def make(depth: int) -> Any:
        calls.append(depth)
        return _nested(depth)

    async def tell(ctx: Context[FailedRun]) -> None:
        await ctx.step.run("tell", told.append, ctx.input.event.data == _nested(150))

    @function("nested", retries=5)
    async def nested(ctx: Context[None]) -> None:
        assert await ctx.step.run("make", make, 150) == _nested(150)
        await ctx.step.run("make", make, 151)

    @function("given", retries=0, on_failure=tell)
    async def given(ctx: Context[Any]) -> None:
        raise ValueError("the deepest input that is taken is told to who handles the failure")

    error, _ = await subject.fail(nested)
    assert isinstance(error, InvokeError)
    assert error.error_type == SerializationError.__name__
    assert "make:1" in str(error), "it names the step"
    assert "150" in str(error), "and the limit"
    assert calls == [150, 151]
    async with subject.open([given]) as backend:
        await _refusal(backend.start(given, _nested(151)), SerializationError)
        await _refusal(backend.invoke(given, _nested(150)), InvokeError)
        await subject.until(lambda: bool(told))
    assert told == [True]


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


NO_IDS = ["", " padded", "padded ", "line\nbreak", "zero\0", "half \ud83d", "x" * 201]
"""Texts that are no run id and no event name."""

NO_STEP_IDS = [*NO_IDS, "a/b", "a:1"]
"""Texts that are no step id: they could also be mistaken for the key of another step."""

NO_DURATIONS: list[Any] = [
    float("inf"),
    float("nan"),
    1e300,
    10**400,
    timedelta.max,
    -1,
    timedelta(seconds=-1),
    True,
    "soon",
    "60",
    [],
]
NO_MOMENTS: list[Any] = [
    float("inf"),
    float("nan"),
    10**400,
    1_900_000_000_000,  # milliseconds
    -1,
    True,
    None,
    "soon",
    "2030-01-01",
    datetime(2030, 1, 1),  # noqa: DTZ001  # what is refused
]


@clause
async def test_c13_an_id_that_is_none_is_refused(subject: Subject) -> None:
    """Of runs, events, steps and patches: before anything is recorded. One of the longest that are allowed works."""
    started: list[str] = []

    @function("named", triggers=["c13/named"])
    async def named(ctx: Context[None]) -> list[str]:
        started.append(ctx.run_id)
        taken: list[str] = []
        for name in NO_IDS:
            try:
                await ctx.step.wait_for_event("wait", name, timeout=subject.unit)
            except ValueError as error:
                assert "is not an event name" in str(error)
            else:
                taken.append(name)
        for name in NO_STEP_IDS:
            try:
                await ctx.step.run(name, len, "x")
            except ValueError as error:
                assert "is not a step id" in str(error)
            else:
                taken.append(name)
        for name in NO_IDS:
            try:
                ctx.patched(name)
            except ValueError as error:
                assert "is not a patch id" in str(error)
            else:
                taken.append(name)
        return taken

    longest = f"{subject.run_id()}/é: {'€' * 200}"[:200]
    async with subject.open([named]) as backend:
        for each in [*NO_IDS, "durably.own"]:
            refused = await _refusal(backend.start(named, run_id=each), ValueError)
            assert "is not a run id" in refused, each
        for each in NO_IDS:
            event = Event("c13/named").model_copy(update={"name": each})
            assert "is not an event name" in await _refusal(backend.send(event), ValueError), each
        run = await backend.start(named, run_id=longest)
        assert await run.result() == []
        assert keys(await (await backend.run(longest)).history()) == []
    assert set(started) == {longest}


@clause
async def test_c13_event_data_without_json_is_refused_before_it_is_sent(subject: Subject) -> None:
    told: dict[str, Any] = {}

    @function("listener", triggers=["c13/told"])
    async def listener(ctx: Context[Any]) -> None:
        told[ctx.run_id] = ctx.input

    @function("teller")
    async def teller(ctx: Context[None]) -> list[str]:
        return [
            await _refusal(ctx.step.send_event("tell", Event("c13/told", "first"), event), SerializationError)
            for event in poisoned
        ]

    poisoned = [Event("c13/told", make()) for make in (_lambda, _nan, _cycle)]
    async with subject.open([listener, teller]) as backend:
        for event in poisoned:
            refused = await _refusal(backend.send(Event("c13/told", "first"), event), SerializationError)
            assert "c13/told" in refused, "it names the event"
        for refused in await backend.invoke(teller):
            assert "c13/told" in refused, "it names the event"
            assert "tell" in refused.split("c13/told")[0], "and the step"
        await backend.send(Event("c13/told", "last"))
        await subject.until(lambda: bool(told))
        for run_id in told:
            await subject.until_ended(await backend.run(run_id))
    assert list(told.values()) == ["last"], "nothing is sent of what is refused in part"


@clause
async def test_c13_a_time_that_is_none_is_refused(subject: Subject) -> None:
    """By one of two errors, which names the step; no engine is asked for what another could not do."""

    @function("quick")
    async def quick(ctx: Context[None]) -> None:
        return

    @function("hasty")
    async def hasty(ctx: Context[None]) -> list[str]:
        calls: dict[str, Callable[[StepAPI, Any], Awaitable[Any]]] = {
            "sleep": lambda step, time: step.sleep("rest", time),
            "run": lambda step, time: step.run("rest", _lambda, timeout=time),
            "invoke": lambda step, time: step.invoke("rest", quick, timeout=time),
            "wait": lambda step, time: step.wait_for_event("rest", "c13/never", timeout=time),
        }
        tries = [(name, each) for name in calls for each in NO_DURATIONS] + [("sleep", None)]
        tries += [("until", each) for each in NO_MOMENTS]
        calls["until"] = lambda step, time: step.sleep_until("rest", time)
        return [name for name, each in tries if await _taken(calls[name], ctx, each)]

    wrong, history = await subject.run(hasty, quick)
    assert not wrong
    assert keys(history) == []


async def _taken(call: Callable[[StepAPI, Any], Awaitable[Any]], ctx: Context[None], time: Any) -> bool:
    """Whether a step takes something that is no time."""
    try:
        await call(ctx.step, time)
    except (TypeError, ValueError) as error:
        return "rest" not in str(error) or isinstance(error, OverflowError)
    return True


async def _refusal(call: Awaitable[Any], kind: type[Exception]) -> str:
    """What the error says that must come."""
    try:
        given = await call
    except kind as error:
        return str(error)
    raise AssertionError(f"{given!r} came where {kind.__name__} had to")


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
