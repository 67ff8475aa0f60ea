"""Whatever user code raises, from a tool, a validator, a body or a function: its run ends, and its neighbours go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    Context,
    DurablyError,
    Function,
    InvokeError,
    ModelError,
    NonRetriableError,
    RetryAfterError,
    RunStatus,
    SerializationError,
    StepError,
    StepTimeoutError,
    ToolError,
    function,
    tool,
)
from durably.core.history import History
from durably.testing import ScriptedModel, call

BOUND = 20_000
"""Characters that a record of a failure may have; the texts drawn here have up to three million."""


# -- exceptions


def broken(_: object) -> str:
    raise RuntimeError("this has no text")


def half(_: object) -> str:
    return "half of a pair: \ud800"


def number(_: object) -> Any:
    return 5


class FieldlessError(DurablyError):
    """One of ours, whose fields were never set."""

    fields: ClassVar[tuple[str, ...]] = ("size", "colour")


class RaisingFieldError(DurablyError):
    """One of ours, whose field raises."""

    fields: ClassVar[tuple[str, ...]] = ("size",)

    @property
    def size(self) -> int:
        raise ZeroDivisionError


class BareStepError(StepError):
    """A step error that its own constructor did not prepare."""

    def __init__(self) -> None:
        Exception.__init__(self, "bare")


class BareRetryError(RetryAfterError):
    """A retry without its delay."""

    def __init__(self) -> None:
        Exception.__init__(self, "later")


class BareTimeoutError(StepTimeoutError):
    """A timeout of no step."""

    def __init__(self) -> None:
        Exception.__init__(self, "slow")


class BareModelError(ModelError):
    """A provider's error that says nothing of the provider."""

    retriable = True

    def __init__(self) -> None:
        Exception.__init__(self, "down")


class BareSerializationError(SerializationError):
    """A value's error whose step is not known, and which takes nothing."""

    def __init__(self) -> None:
        Exception.__init__(self, "no JSON")


class UndecidedError(DurablyError):
    """Whether another attempt may help cannot be asked."""

    @property
    def retriable(self) -> bool:  # type: ignore[override]
        raise ZeroDivisionError


BASES: list[type[BaseException]] = [
    ValueError,
    KeyError,
    AssertionError,
    ZeroDivisionError,
    OSError,
    RecursionError,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    SystemExit,
    BaseException,
    asyncio.CancelledError,
    DurablyError,
    ToolError,
    NonRetriableError,
]
BARE: list[type[BaseException]] = [
    FieldlessError,
    RaisingFieldError,
    BareStepError,
    BareRetryError,
    BareTimeoutError,
    BareModelError,
    BareSerializationError,
    UndecidedError,
]
READY: list[Callable[[], BaseException]] = [
    lambda: RetryAfterError("later", delay=1e-3),
    lambda: RetryAfterError("never", delay=float("inf")),
    lambda: RetryAfterError("when?", delay=float("nan")),
    lambda: ModelError("down", provider="p", model="m", retriable=True, retry_after=float("inf")),
    lambda: StepError(step="other", attempts=1, error_type="X", message="\ud800"),
    lambda: SerializationError("no JSON", step="elsewhere"),
    lambda: InvokeError(error_type="X", message="x" * 100_000, function="f", run_id="r"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
]
TEXTS = ["", "no", "\ud800", "\x00", "x" * 3_000_000, "\ud800" * 10_000]


@st.composite
def raisers(draw: st.DrawFn, depth: int = 2) -> Callable[[], BaseException]:
    """A function that makes an exception: a new one at each attempt."""
    kinds = ["text", "method", "bare", "ready", *(["group", "cause", "notes"] if depth else [])]
    match draw(st.sampled_from(kinds)):
        case "text":
            base, text = draw(st.sampled_from(BASES)), draw(st.sampled_from(TEXTS))
            return lambda: base(text)
        case "method":
            base = draw(st.sampled_from(BASES))
            names = draw(st.sets(st.sampled_from(["__str__", "__repr__"]), min_size=1))
            made = type("Odd", (base,), dict.fromkeys(names, draw(st.sampled_from([broken, half, number]))))
            return lambda: made("said")
        case "bare":
            return draw(st.sampled_from(BARE))
        case "ready":
            return draw(st.sampled_from(READY))
        case "group":
            inside = draw(st.lists(raisers(depth - 1), min_size=1, max_size=3))
            return lambda: BaseExceptionGroup("several", [each() for each in inside])
        case "cause":
            return _with_cause(draw(raisers(depth - 1)), draw(raisers(depth - 1)))
        case _:
            return _with_notes(draw(raisers(depth - 1)), draw(st.sampled_from(TEXTS)))


def _with_cause(make: Callable[[], BaseException], cause: Callable[[], BaseException]) -> Callable[[], BaseException]:
    def made() -> BaseException:
        error = make()
        error.__cause__ = cause()
        return error

    return made


def _with_notes(make: Callable[[], BaseException], note: str) -> Callable[[], BaseException]:
    def made() -> BaseException:
        error = make()
        error.add_note(note)
        return error

    return made


# -- where they are raised

Place = Literal["tool", "sync tool", "validator", "body", "sync body", "function"]
PLACES: list[Place] = ["tool", "sync tool", "validator", "body", "sync body", "function"]


@dataclass
class World:
    """One function or agent that raises, and what its run may come to."""

    raising: Function[Any, Any]
    ends: set[RunStatus]


def world(place: Place, make: Callable[[], BaseException]) -> World:
    def refuse(value: int) -> int:
        raise make()

    async def body() -> None:
        raise make()

    def sync_body() -> None:
        raise make()

    if place == "function":

        @function("raising", retries=1)
        async def raising(ctx: Context[None]) -> None:
            raise make()

        return World(raising, {RunStatus.FAILED})
    if place in ("body", "sync body"):

        @function("raising", retries=1)
        async def stepping(ctx: Context[None]) -> None:
            await ctx.step.run("body", body if place == "body" else sync_body)

        return World(stepping, {RunStatus.FAILED})
    hint: Any = Annotated[int, AfterValidator(refuse)] if place == "validator" else int
    return World(_agent(place, hint, make), {RunStatus.COMPLETED})


def _agent(place: Place, hint: Any, make: Callable[[], BaseException]) -> Agent:
    if place == "tool":

        @tool(name="act", retries=1)
        async def act(value: hint) -> str:  # pyright: ignore[reportInvalidTypeForm]
            raise make()
    else:

        @tool(name="act", retries=1)
        def act(value: hint) -> str:  # pyright: ignore[reportInvalidTypeForm]
            raise make()

    return Agent("raising", model=ScriptedModel(call("act", value=1), "I see."), instructions="", tools=[act])


@function("neighbour")
async def neighbour(ctx: Context[int]) -> int:
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    first = await ctx.step.run("double", double, ctx.input)
    await ctx.step.sleep("rest", 0.001)
    return await ctx.step.run("double", double, first)


async def run_beside(made: World) -> tuple[RunStatus, History]:
    data: Any = "go" if isinstance(made.raising, Agent) else None
    async with MemoryBackend([made.raising, neighbour]) as backend:
        before = await backend.start(neighbour, 1)
        run = await backend.start(made.raising, data)
        after = await backend.start(neighbour, 2)
        await backend.drain()
        assert [await before.result(), await after.result()] == [4, 8]
        assert await backend.invoke(neighbour, 3) == 12
        return (await run.refresh()).status, await run.history()


@pytest.mark.parametrize("place", PLACES)
@given(make=raisers())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_raised_ends_its_own_run_alone(place: Place, make: Callable[[], BaseException]) -> None:
    made = world(place, make)
    status, history = asyncio.run(run_beside(made))
    assert status in made.ends
    assert History.from_jsonl(history.to_jsonl()) == history
    for record in history:
        assert record.error is None or len(str(record.error)) < BOUND
        assert record.output is None or len(record.output) < BOUND
    attempts = [record for record in history if record.key in ("body", "tool-act", "") and record.error is not None]
    assert len(attempts) <= 6


@given(make=raisers())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_the_caller_of_a_step_gets_the_same_error_on_replay(make: Callable[[], BaseException]) -> None:
    async def body() -> None:
        raise make()

    @function("catching", retries=0)
    async def catching(ctx: Context[None]) -> list[str]:
        said: list[str] = []
        for _ in range(2):
            try:
                await ctx.step.run("body", body, retries=0)
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
            await ctx.step.sleep("rest", 0.001)
        return said

    async def run(evict: Literal["never", "always"]) -> list[str]:
        async with MemoryBackend([catching], evict=evict) as backend:
            return await backend.invoke(catching, None, run_id="run")

    live = asyncio.run(run("never"))
    assert len(live) == 2
    assert asyncio.run(run("always")) == live
