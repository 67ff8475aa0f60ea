"""C03, C04 and C05: what is remembered, as what, and how often a body runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from durably.core import Context, current_step, function
from durably.testing.conformance.subject import Subject, at, keys
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


@clause
async def test_c03_a_committed_body_never_runs_again(subject: Subject) -> None:
    bodies: list[str] = []

    def body(name: str) -> str:
        bodies.append(name)
        return name.upper()

    @function("three")
    async def three(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run(name, body, name) for name in ("a", "b", "c")]

    for name in ("a", "b", "c"):
        assert await subject.crash(three, where=at("after_commit", name))
    result, history = await subject.run(three)
    assert result == ["A", "B", "C"]
    assert bodies == ["a", "b", "c"]
    assert keys(history) == ["a", "b", "c"]


@clause
async def test_c03_what_the_caller_was_told_is_committed(subject: Subject) -> None:
    told: list[list[int]] = []
    count = 0

    async def draw() -> int:
        nonlocal count
        count += 1
        return count

    @function("lottery")
    async def lottery(ctx: Context[None]) -> int:
        numbers = [await ctx.step.run("draw", draw)]
        told.append(numbers)
        numbers.append(await ctx.step.run("draw", draw))
        return sum(numbers)

    assert await subject.crash(lottery, where=at("before_start", "draw:1"))
    assert await subject.crash(lottery, where=at("before_body", "draw:1"))
    result, _ = await subject.run(lottery)
    assert result == 3
    assert [numbers[0] for numbers in told] == [1] * len(told), "a value the caller has seen must not change"


@clause
async def test_c03_a_failed_function_does_not_run_its_committed_steps_again(subject: Subject) -> None:
    bodies: list[str] = []

    async def body(name: str) -> None:
        bodies.append(name)

    @function("shaky", retries=2)
    async def shaky(ctx: Context[None]) -> int:
        await ctx.step.gather(lambda: ctx.step.run("a", body, "a"), lambda: ctx.step.run("b", body, "b"))
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        return ctx.attempt

    result, _ = await subject.run(shaky)
    assert result == 3
    assert sorted(bodies) == ["a", "b"]


class _Colour(Enum):
    RED = "red"


@dataclass
class _Line:
    sku: str
    price: Decimal


class _Order(BaseModel):
    lines: list[_Line]
    placed: datetime
    tags: set[str]


_PLACED = datetime(2026, 1, 1, tzinfo=UTC)


def _order() -> _Order:
    return _Order(lines=[_Line("x", Decimal("9.99"))], placed=_PLACED, tags={"new"})


def _pair() -> tuple[int, str]:
    return (2**60 + 1, "é\u2028\U0001f600")


def _colours() -> dict[str, _Colour]:
    return {"first": _Colour.RED}


def _bytes() -> bytes:
    return b"\xff\x00"


def _untyped():  # type: ignore[no-untyped-def]
    return (1, 2, {"three": None})


@clause
async def test_c04_the_first_pass_and_the_replay_see_equal_values_and_types(subject: Subject) -> None:
    passes: list[list[Any]] = []

    @function("values")
    async def values(ctx: Context[None]) -> int:
        bodies: list[Any] = [_order, _pair, _colours, _bytes, _untyped]
        seen = [await ctx.step.run("get", body) for body in bodies]
        passes.append(seen)
        return await ctx.step.run("last", _echo, len(seen))

    assert await subject.crash(values, where=at("before_body", "last"))
    result, _ = await subject.run(values)
    assert result == 5
    live, replayed = passes[0], passes[-1]
    assert len(passes) > 1
    assert repr(live) == repr(replayed)
    assert live[:4] == [_order(), _pair(), _colours(), _bytes()]
    assert live[4] == [1, 2, {"three": None}], "without an annotation a value is plain JSON, also the first time"


@clause
async def test_c04_a_value_changed_after_its_return_is_the_recorded_one(subject: Subject) -> None:
    kept: list[list[int]] = []

    async def body() -> list[int]:
        kept.append([1])
        return kept[-1]

    @function("mutable")
    async def mutable(ctx: Context[None]) -> list[int]:
        value = await ctx.step.run("get", body)
        kept[-1].append(2)
        again = await ctx.step.run("sum", sum, value)
        value.append(again)
        return value

    result, history = await subject.run(mutable)
    assert result == [1, 1]
    assert history.steps()[0].value == [1]


@clause
async def test_c04_output_type_decides_over_the_annotation(subject: Subject) -> None:
    seen: list[object] = []

    @function("typed")
    async def typed(ctx: Context[None]) -> None:
        seen.append(await ctx.step.run("get", _echo, [1, 2], output_type=tuple[int, int]))
        await ctx.step.run("stop", _echo, 1)

    assert await subject.crash(typed, where=at("before_body", "stop"))
    await subject.run(typed)
    assert len(seen) >= 2
    assert set(seen) == {(1, 2)}


@clause
async def test_c05_bodies_run_once_without_a_reason_to_run_again(subject: Subject) -> None:
    bodies: list[tuple[str, int]] = []

    async def body() -> None:
        info = current_step()
        bodies.append((info.key, info.attempt))

    @function("calm")
    async def calm(ctx: Context[None]) -> None:
        await ctx.step.run("a", body)
        await ctx.step.gather(*[lambda: ctx.step.run("b", body)] * 3)
        await ctx.step.run("a", body)

    await subject.run(calm)
    assert sorted(bodies) == [("a", 1), ("a:1", 1), *((f"gather[{n}]/b", 1) for n in range(3))]


@clause
async def test_c05_each_execution_has_its_own_attempt_number(subject: Subject) -> None:
    seen: list[tuple[int, str]] = []

    async def body() -> str:
        info = current_step()
        seen.append((info.attempt, info.idempotency_key))
        if len(seen) == 2:
            raise ConnectionError("once")
        return "done"

    @function("hard", retries=1)
    async def hard(ctx: Context[None]) -> str:
        return await ctx.step.run("work", body)

    assert await subject.crash(hard, where=at("after_effect", "work"))
    assert await subject.crash(hard, where=at("after_effect", "work"))
    result, _ = await subject.run(hard)
    assert result == "done"
    attempts = [attempt for attempt, _ in seen]
    assert len(seen) == 4, "cut off, failed, cut off again, committed"
    assert attempts == sorted(set(attempts)), f"the attempt numbers {attempts} must grow"
    assert len({key for _, key in seen}) == 1


@clause
async def test_c05_an_effect_comes_before_its_record(subject: Subject) -> None:
    bodies: list[str] = []

    async def body(name: str) -> str:
        bodies.append(name)
        return name

    @function("effects")
    async def effects(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run("a", body, "a"), await ctx.step.run("b", body, "b")]

    assert await subject.crash(effects, where=at("before_body", "a"))
    assert await subject.crash(effects, where=at("before_body", "b"))
    result, _ = await subject.run(effects)
    assert result == ["a", "b"]
    assert bodies == ["a", "b"], "no step is committed before its body has run"
