"""C25: a body that kills its process again and again fails its step; crashes around steps fail the run."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from durably.core import (
    Agent,
    Context,
    Event,
    InvokeError,
    StepCrashedError,
    current_step,
    function,
    tool,
)
from durably.core.errors import CrashLoopError
from durably.core.functions import FailedRun
from durably.core.steps import Point
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel, call

LIMIT = 2

begun: Counter[str] = Counter()
"""How often a body of this module has begun in each run."""


async def _echo(value: Any) -> Any:
    return value


async def crunch() -> str:
    """A body that any worker can find by its name."""
    begun[current_step().run_id] += 1
    return "crunched"


@tool(name="crunch")
async def crunch_tool() -> str:
    """Crunch numbers."""
    return await crunch()


@function("crunching", crash_limit=LIMIT)
async def crunching(ctx: Context[None]) -> list[Any]:
    """What became of a body that may kill its process, and of the steps around it."""
    before = await ctx.step.run("before", _echo, "before")
    try:
        what: Any = await ctx.step.run("boom", crunch)
    except StepCrashedError as error:
        what = [error.step, error.crashes, error.since]
    return [before, what, await ctx.step.run("after", _echo, "after")]


executions: dict[str, list[int]] = {}
"""The numbers of the executions of a long body, by its run."""


async def _long(length: int) -> str:
    """A body that is at its end only in its last execution."""
    seen = executions[current_step().run_id]
    seen.append(current_step().attempt)
    if len(seen) < length:
        await asyncio.Event().wait()
    return "done"


@function("deployed", crash_limit=1)
async def deployed(ctx: Context[int]) -> str:
    """A long body that is cut off by stops of its worker."""
    return await ctx.step.run("long", _long, ctx.input)


@clause
async def test_c25_a_step_that_kills_its_process_again_and_again_fails(subject: Subject) -> None:
    started = None
    for _ in range(LIMIT + 1):
        assert await subject.crash(crunching, where=at("after_effect", "boom")), "the body runs once more"
        async with subject.open([]) as backend:
            started = started or subject.now(backend)
    assert await subject.crash(crunching, where=at("after_commit", "after")), "the step has failed, and was caught"
    (before, (step, crashes, since), after), history = await subject.run(crunching)
    assert (before, step, crashes, after) == ("before", "boom", LIMIT + 1, "after")
    assert begun[subject.run_id()] == LIMIT + 1, "the body does not run again"
    record = next(record for record in history.steps() if record.key == "boom")
    assert record.error is not None
    assert (record.error["type"], record.error["since"]) == ("StepCrashedError", since), "the same on replay"
    assert 0 < since <= record.at


@clause
async def test_c25_as_many_crashes_as_the_limit_are_survived(subject: Subject) -> None:
    for _ in range(LIMIT):
        assert await subject.crash(crunching, where=at("after_effect", "boom"))
    result, _ = await subject.run(crunching)
    assert result == ["before", "crunched", "after"]
    assert begun[subject.run_id()] == LIMIT + 1


@clause
async def test_c25_a_closure_is_counted_too_and_a_step_has_a_limit_of_its_own(subject: Subject) -> None:
    attempts: list[int] = []

    @function("own")
    async def own(ctx: Context[None]) -> Any:
        async def body() -> str:
            attempts.append(current_step().attempt)
            return "done"

        try:
            return await ctx.step.run("boom", body, crash_limit=1)
        except StepCrashedError as error:
            return error.crashes

    for _ in range(2):
        assert await subject.crash(own, where=at("after_effect", "boom"))
    result, _ = await subject.run(own)
    assert (result, attempts) == (2, [1, 2])


@clause
async def test_c25_crashes_of_other_steps_are_not_counted(subject: Subject) -> None:
    names = "abcd"

    @function("several", crash_limit=1)
    async def several(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run(name, _echo, name) for name in names]

    for name in names:
        assert await subject.crash(several, where=at("after_effect", name))
    result, _ = await subject.run(several)
    assert result == list(names), "each step was cut off once"


@clause
async def test_c25_a_run_that_waits_is_not_to_blame(subject: Subject) -> None:
    name = f"conformance/{subject.token}.go"

    @function("patient", crash_limit=1)
    async def patient(ctx: Context[None]) -> Any:
        first, second = await ctx.step.gather(
            lambda: ctx.step.wait_for_event("one", name), lambda: ctx.step.sleep("two", 8 * subject.unit)
        )
        return [first and first.data, second]

    @function("dying", crash_limit=9)
    async def dying(ctx: Context[None]) -> None:
        await ctx.step.sleep("while", subject.unit)
        await ctx.step.run("boom", _echo, 1)

    async with subject.open([patient, dying]) as backend:
        await backend.start(patient, run_id=subject.run_id(9))
    for number in range(5):
        assert await subject.crash(dying, patient, number=number, where=at("after_effect", "boom"))
    async with subject.open([patient]) as backend:
        await backend.send(Event(name, "gone"))
        assert await (await backend.run(subject.run_id(9))).result() == ["gone", None]


@clause
async def test_c25_crashes_outside_any_step_fail_the_run(subject: Subject) -> None:
    told: list[Any] = []

    async def tell(error: dict[str, Any]) -> None:
        told.append(error["type"])

    async def handle(ctx: Context[FailedRun]) -> None:
        await ctx.step.run("tell", tell, ctx.input.error)

    @function("outside", crash_limit=LIMIT, on_failure=handle)
    async def outside(ctx: Context[None]) -> Any:
        return await ctx.step.run("a", _echo, 1)

    def dies(point: Point) -> bool:
        return (point.name, point.function) == ("before_first", "outside")

    crashes = 0
    while await subject.crash(outside, where=dies):
        crashes += 1
        assert crashes <= LIMIT + 2, "the run is given up"
    assert crashes > LIMIT
    error, history = await subject.fail(outside)
    assert isinstance(error, InvokeError)
    assert error.error_type == CrashLoopError.__name__
    assert not history.steps()
    async with subject.open([outside]):
        await subject.until(lambda: bool(told))
    assert told == [CrashLoopError.__name__], "the failure handler runs, once"


@clause
async def test_c25_an_orderly_stop_counts_nothing(subject: Subject) -> None:
    attempts = executions[subject.run_id()] = []
    for number in range(2):
        async with subject.open([deployed]) as backend:
            await backend.start(deployed, 3, run_id=subject.run_id())
            await subject.until(lambda: len(attempts) > number)  # noqa: B023  # looked at here, and no later
    result, _ = await subject.run(deployed, data=3)
    assert result == "done", "a body that was cut off by a deployment has not crashed"
    assert len(set(attempts)) == len(attempts) == 3, "each execution has a number of its own"


@clause
async def test_c25_an_agent_goes_on_without_the_tool_that_kills_it(subject: Subject) -> None:
    script = ScriptedModel(call("crunch"), "It cannot be done.")
    agent = Agent("analyst", model=script, instructions="Crunch.", tools=[crunch_tool], crash_limit=1)

    @function("neighbour")
    async def neighbour(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run(name, _echo, name) for name in "ab"]

    async with subject.open([agent, neighbour]) as backend:
        await backend.start(neighbour, run_id=subject.run_id(1))
    for _ in range(2):
        assert await subject.crash(agent, neighbour, data="Go", where=at("after_effect", "tool-crunch"))
    async with subject.open([agent, neighbour]) as backend:
        result = await (await backend.start(agent, "Go", run_id=subject.run_id())).result()
        assert await (await backend.run(subject.run_id(1))).result() == ["a", "b"]
    assert result.text == "It cannot be done."
    (told,) = [message for message in result.messages if message.role == "tool"]
    assert told.is_error
    assert "died 2 times" in told.content
