"""C09 and C26 for types: a deploy to which what a run recorded is of another shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from durably.core import Context, Function, NonDeterminismError, RunStatus, function
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause


class _Order(BaseModel):
    number: int


class _PricedOrder(BaseModel):
    number: int
    currency: str


Type = type[_Order] | type[_PricedOrder]


def _order() -> Any:
    return _Order(number=1042)


def _of_step(tp: Type, seen: list[str], **options: Any) -> list[Function[Any, Any]]:
    @function("c09-typed", **options)
    async def typed(ctx: Context[Any]) -> int:
        order = await ctx.step.run("get", _order, output_type=tp)
        return await _end(ctx, order, seen)

    return [typed]


def _of_child(tp: Type, seen: list[str], **options: Any) -> list[Function[Any, Any]]:
    async def get(ctx: Context[Any]) -> Any:
        return _order()

    get.__annotations__["return"] = tp
    child = function("c09-typed-child")(get)

    @function("c09-typed", **options)
    async def typed(ctx: Context[Any]) -> int:
        order = await ctx.step.invoke("get", child)
        return await _end(ctx, order, seen)

    return [typed, child]


def _of_input(tp: Type, seen: list[str], **options: Any) -> list[Function[Any, Any]]:
    async def typed(ctx: Context[Any]) -> int:
        order = await ctx.step.run("get", _order, output_type=_Order)
        return await _end(ctx, order, seen)

    typed.__annotations__["ctx"] = Context[tp]  # type: ignore[valid-type]
    return [function("c09-typed", **options)(typed)]


async def _end(ctx: Context[Any], order: Any, seen: list[str]) -> int:
    seen.append(type(order).__name__)
    await ctx.step.run("last", len, "x")
    return int(order.number)


KINDS: dict[str, Callable[..., list[Function[Any, Any]]]] = {
    "the value of a step": _of_step,
    "the result of a child": _of_child,
    "the input": _of_input,
}
"""What is of a type of the user's."""

STEPS = {"the value of a step": "get", "the result of a child": "get", "the input": "durably-input"}

START = {"number": 7}


@clause
async def test_c09_what_was_recorded_in_another_shape_is_no_error_of_the_step(subject: Subject) -> None:
    for number, (kind, make) in enumerate(KINDS.items()):
        seen: list[str] = []
        old, new = make(_Order, seen), make(_PricedOrder, seen)
        assert await subject.crash(*old, data=START, number=number, where=at("before_body", "last")), kind
        seen.clear()
        async with subject.open(new) as backend:
            run = await backend.run(subject.run_id(number))
            await subject.until_ended(run)
            error = (await run.history())[-1].error or {}
        assert (error["type"], error["step"]) == (NonDeterminismError.__name__, STEPS[kind]), f"{kind}: {error}"
        assert "currency: Field required" in error["asked"], f"{kind}: {error}"
        assert seen == [], f"{kind}: the code must not go on"


@clause
async def test_c26_a_run_waits_for_code_that_can_read_what_it_recorded(subject: Subject) -> None:
    for number, (kind, make) in enumerate(KINDS.items()):
        seen: list[str] = []
        old, new = (make(tp, seen, on_code_change="wait") for tp in (_Order, _PricedOrder))
        assert await subject.crash(*old, data=START, number=number, where=at("before_body", "last")), kind
        async with subject.open(new) as backend:
            run = await backend.run(subject.run_id(number))
            while run.status is not RunStatus.STUCK:
                await asyncio.sleep(0.01)
                await run.refresh()
            assert run.view.stuck is not None
            assert "currency: Field required" in run.view.stuck.message, kind
        async with subject.open(old) as backend:
            assert await (await backend.run(subject.run_id(number))).result() == 1042, kind
