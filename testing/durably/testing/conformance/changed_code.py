"""C09 for each kind of step: what was asked for then, what is asked for now, and both in the error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from durably.core import Context, Event, Function, InvokeError, NonDeterminismError, StepAPI, function
from durably.core.serialization import SHORT
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause

Code = Callable[[StepAPI], Awaitable[Any]]


@function("c09-child")
async def _child(ctx: Context[Any]) -> Any:
    return ctx.input


@function("c09-other")
async def _other(ctx: Context[Any]) -> Any:
    return ctx.input


async def _echo(value: Any) -> Any:
    return value


def _branches(step: StepAPI, count: int) -> Awaitable[Any]:
    return step.gather(*[lambda: step.run("a", _echo, 1)] * count)


CHANGES: dict[str, tuple[Code, Code, str, str]] = {
    "the argument of a body": (
        lambda step: step.run("x", _echo, "sell"),
        lambda step: step.run("x", _echo, "buy"),
        "sell",
        "buy",
    ),
    "the function of a call": (
        lambda step: step.invoke("x", _child, 1),
        lambda step: step.invoke("x", _other, 1),
        "c09-child",
        "c09-other",
    ),
    "the input of a call": (
        lambda step: step.invoke("x", _child, "sell"),
        lambda step: step.invoke("x", _child, "buy"),
        "sell",
        "buy",
    ),
    "the data of an event": (
        lambda step: step.send_event("x", Event("c09/e", "sell")),
        lambda step: step.send_event("x", Event("c09/e", "buy")),
        "sell",
        "buy",
    ),
    "the time of a sleep": (
        lambda step: step.sleep("x", 0.125),
        lambda step: step.sleep("x", 0.25),
        "0.125",
        "0.25",
    ),
    "the match of a wait": (
        lambda step: step.wait_for_event("x", "c09/never", match={"n": "sell"}, timeout=0.1),
        lambda step: step.wait_for_event("x", "c09/never", match={"n": "buy"}, timeout=0.1),
        "sell",
        "buy",
    ),
    "how many branches there are": (
        lambda step: _branches(step, 2),
        lambda step: _branches(step, 1),
        "gather[1]/",
        "1 branches",
    ),
}
"""What changes: the code before and after, and what the error must say of each."""


def _with(code: Code) -> Function[None, None]:
    @function("c09-changing")
    async def changing(ctx: Context[None]) -> None:
        await code(ctx.step)
        await ctx.step.run("last", _echo, 1)

    return changing


@clause
async def test_c09_what_a_step_of_any_kind_asks_for_is_compared_and_both_are_named(subject: Subject) -> None:
    for number, (change, (before, after, then, now)) in enumerate(CHANGES.items()):
        old, new = _with(before), _with(after)
        assert await subject.crash(old, _child, _other, number=number, where=at("before_body", "last")), change
        error, history = await subject.fail(new, _child, _other, number=number)
        assert isinstance(error, InvokeError)
        assert error.error_type == NonDeterminismError.__name__, f"{change}: {error}"
        found = history[-1].error or {}
        for side, wanted in ((found["recorded"], then), (found["asked"], now)):
            assert wanted in side or SHORT in side, f"{change}: {side!r}"  # an engine may keep a short digest
        assert found["recorded"] != found["asked"], change


@clause
async def test_c09_a_step_of_another_name_or_kind_is_named_beside_the_recorded_one(subject: Subject) -> None:
    old = _with(lambda step: step.run("old", _echo, 1))
    for number, new in enumerate(
        (_with(lambda step: step.run("new", _echo, 1)), _with(lambda step: step.sleep("old", 0)))
    ):
        assert await subject.crash(old, number=number, where=at("before_body", "last"))
        _, history = await subject.fail(new, number=number)
        found = history[-1].error or {}
        assert (found["step"], found["recorded"]) == ("old", "step 'old'")
        assert found["asked"] == ("step 'new'", "sleep 'old'")[number]
