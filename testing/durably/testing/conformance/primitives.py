"""C16, C17 and C18: invoke, send_event and gather."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any

from pydantic import BaseModel

from durably.core import (
    Agent,
    Context,
    Event,
    InvokeError,
    NonRetriableError,
    RetryAfterError,
    RunStatus,
    StepAPI,
    StepError,
    StepTimeoutError,
    delegate,
    function,
    tool,
)
from durably.core.errors import ConcurrentStepError
from durably.core.messages import AssistantMessage, TextPart, ToolCall
from durably.core.model import ModelResponse, Usage
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel


async def _echo(value: Any) -> Any:
    return value


class _Receipt(BaseModel):
    order: int


@clause
async def test_c16_invoke_returns_the_childs_typed_output_also_on_replay(subject: Subject) -> None:
    seen: list[Any] = []

    @function("child")
    async def child(ctx: Context[int]) -> _Receipt:
        return _Receipt(order=ctx.input)

    @function("parent")
    async def parent(ctx: Context[None]) -> int:
        seen.append(await ctx.step.invoke("call", child, 7))
        return await ctx.step.run("last", _echo, seen[-1].order)

    assert await subject.crash(parent, child, where=at("before_body", "last"))
    result, _ = await subject.run(parent, child)
    assert result == 7
    assert len(seen) >= 2
    assert seen == [_Receipt(order=7)] * len(seen)


@clause
async def test_c16_one_child_a_step_whatever_crashes(subject: Subject) -> None:
    children: dict[str, list[str]] = {}

    @function("child")
    async def child(ctx: Context[str]) -> str:
        runs = children.setdefault(ctx.input, [])
        if ctx.run_id not in runs:
            runs.append(ctx.run_id)
        return await ctx.step.run("work", _echo, ctx.input)

    @function("parent")
    async def parent(ctx: Context[None]) -> list[str]:
        return [await ctx.step.invoke("call", child, name) for name in ("one", "two")]

    for where in (
        at("before_start", "call"),
        at("child_started", "call"),
        at("before_body", "work"),
        at("after_result"),
        at("child_done", "call"),
        at("after_commit", "call"),
        at("child_started", "call:1"),
    ):
        await subject.crash(parent, child, where=where)
    result, _ = await subject.run(parent, child)
    assert result == ["one", "two"]
    assert {name: len(runs) for name, runs in children.items()} == {"one": 1, "two": 1}


@clause
async def test_c16_a_failed_child_raises_invoke_error(subject: Subject) -> None:
    seen: list[tuple[Any, ...]] = []

    @function("child", retries=0)
    async def child(ctx: Context[None]) -> None:
        raise ValueError("the child's reason")

    @function("parent", retries=0)
    async def parent(ctx: Context[None]) -> str:
        try:
            await ctx.step.invoke("call", child)
        except InvokeError as error:
            seen.append((type(error), error.step, error.function, error.run_id, error.error_type, error.message))
        return await ctx.step.run("last", _echo, "went on")

    assert await subject.crash(parent, child, where=at("before_body", "last"))
    result, _ = await subject.run(parent, child)
    assert result == "went on"
    assert len(seen) >= 2
    assert set(seen) == {seen[0]}
    assert seen[0][:3] == (InvokeError, "call", "child")
    assert seen[0][3]
    assert seen[0][4:] == ("ValueError", "the child's reason")


def _priced(cost: float, part: TextPart | ToolCall) -> ModelResponse:
    usage = Usage(input_tokens=100, output_tokens=1)
    return ModelResponse(message=AssistantMessage(parts=[part]), usage=usage, cost=cost)


def _asks(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id=f"call-{name}", name=name, arguments=arguments)


@clause
async def test_c16_a_failed_agent_tells_its_caller_what_it_had_spent(subject: Subject) -> None:
    @tool
    async def look(place: str) -> str:
        """Look there."""
        return "nothing"

    looks = ScriptedModel(_priced(0.25, _asks("look", place="here")), NonRetriableError("closed"))
    asks_on = ScriptedModel(_priced(1.0, _asks("ask_clerk", task="find it")))
    asks = ScriptedModel(_priced(4.0, _asks("ask_expert", task="find it")), _priced(16.0, TextPart(text="sorry")))
    clerk = Agent("clerk", model=looks, instructions="", tools=[look], retries=0)
    expert = Agent("expert", model=asks_on, instructions="", tools=[delegate(clerk, on_error="raise")], retries=0)
    top = Agent("top", model=asks, instructions="", tools=[delegate(expert)])

    assert await subject.crash(top, data="go", where=at("before_body", "think:1"))
    result, _ = await subject.run(top, data="go")
    assert result.text == "sorry"
    assert (result.usage, result.cost) == (Usage(input_tokens=400, output_tokens=4), 21.25)


@clause
async def test_c16_what_an_agent_spent_until_it_was_cut_off_counts(subject: Subject) -> None:
    @tool
    async def look(place: str) -> str:
        """Look there."""
        return "nothing"

    busy = RetryAfterError("busy", delay=1000 * subject.unit)
    looks = ScriptedModel(_priced(0.25, _asks("look", place="here")), busy)
    asks = ScriptedModel(_priced(4.0, _asks("ask_clerk", task="find it")), _priced(16.0, TextPart(text="sorry")))
    clerk = Agent("clerk", model=looks, instructions="", tools=[look])
    top = Agent("top", model=asks, instructions="", tools=[delegate(clerk, timeout=3 * subject.unit)])

    result, _ = await subject.run(top, data="go")
    assert result.text == "sorry"
    assert (result.usage, result.cost) == (Usage(input_tokens=300, output_tokens=3), 20.25)


@clause
async def test_c16_a_timeout_raises_and_cancels_the_child(subject: Subject) -> None:
    children: list[str] = []
    late: list[int] = []

    async def body() -> None:
        late.append(1)

    @function("child")
    async def child(ctx: Context[None]) -> None:
        children.append(ctx.run_id)
        await ctx.step.sleep("long", 3 * subject.unit)
        await ctx.step.run("late", body)

    @function("parent")
    async def parent(ctx: Context[None]) -> str:
        try:
            await ctx.step.invoke("call", child, timeout=subject.unit)
        except StepTimeoutError as error:
            await ctx.step.sleep("long", 4 * subject.unit)
            return error.step
        return "no timeout"

    async with subject.open([parent, child]) as backend:
        run = await backend.start(parent)
        assert await run.result() == "call"
        assert (await backend.run(children[0])).status is RunStatus.CANCELLED
    assert not late


@clause
async def test_c16_a_child_that_ends_in_its_time_gives_its_output(subject: Subject) -> None:
    @function("child")
    async def child(ctx: Context[None]) -> str:
        await ctx.step.sleep("nap", subject.unit)
        return "in time"

    @function("parent")
    async def parent(ctx: Context[None]) -> str:
        return await ctx.step.invoke("call", child, timeout=20 * subject.unit)

    result, _ = await subject.run(parent, child)
    assert result == "in time"


@clause
async def test_c17_each_event_once_whatever_crashes(subject: Subject) -> None:
    told: dict[str, set[str]] = {}

    @function("listener", triggers=["c17/told"])
    async def listener(ctx: Context[str]) -> None:
        told.setdefault(ctx.input, set()).add(ctx.run_id)

    @function("sender")
    async def sender(ctx: Context[str]) -> list[str]:
        names = [f"{ctx.input}-{n}" for n in range(2)]
        first = await ctx.step.send_event("tell", *[Event("c17/told", name) for name in names])
        second = await ctx.step.send_event("tell", Event("c17/told", f"{ctx.input}-2"))
        return first + second

    points = ("before_start", "after_send", "after_commit", "replay")
    for number, name in enumerate(points):
        key = "tell" if name != "before_start" else "tell:1"
        data = f"run{number}"
        await subject.crash(sender, listener, data=data, number=number, where=at("after_commit", "tell"))
        await subject.crash(sender, listener, data=data, number=number, where=at(name, key))
        ids, _ = await subject.run(sender, listener, data=data, number=number)
        assert len(set(ids)) == 3
        async with subject.open([sender, listener]):
            await subject.until(lambda data=data: all(f"{data}-{n}" in told for n in range(3)))  # type: ignore[misc]
    assert len(told) == 3 * len(points)
    assert all(len(runs) == 1 for runs in told.values()), "each event starts one run"


@clause
async def test_c17_an_event_with_a_known_id_is_dropped(subject: Subject) -> None:
    told: list[str | None] = []

    @function("listener", triggers=["c17/known"])
    async def listener(ctx: Context[Any]) -> None:
        told.append(ctx.event.id)

    @function("sender")
    async def sender(ctx: Context[None]) -> list[str]:
        return await ctx.step.send_event("tell", *[Event("c17/known", n, id=f"{subject.token}-x") for n in range(2)])

    @function("waiter")
    async def waiter(ctx: Context[None]) -> bool:
        event, _ = await ctx.step.gather(
            lambda: ctx.step.wait_for_event("again", "c17/known", timeout=subject.unit / 4),
            lambda: ctx.step.send_event("tell", Event("c17/known", 5, id=f"{subject.token}-x")),
        )
        return event is None

    async with subject.open([sender, listener, waiter]) as backend:
        assert await backend.invoke(sender) == [f"{subject.token}-x"] * 2
        assert await backend.invoke(waiter), "nor does it end a wait"
        await backend.send(Event("c17/known", 3, id=f"{subject.token}-x"))
        await backend.send(Event("c17/known", 4, id=f"{subject.token}-y"))
        await subject.until(lambda: f"{subject.token}-y" in told)
    assert told == [f"{subject.token}-x", f"{subject.token}-y"]


@clause
async def test_c17_ts_delays_delivery_and_send_does_not_wait(subject: Subject) -> None:
    received: list[float] = []
    sent: list[float] = []
    unit = subject.unit

    async with subject.open([]) as backend:
        start = subject.now(backend)

    @function("listener", triggers=["c17/later"])
    async def listener(ctx: Context[Any]) -> None:
        received.append(subject.now(backend))

    @function("sender")
    async def sender(ctx: Context[None]) -> None:
        await ctx.step.send_event("tell", Event("c17/later", ts=start + 2 * unit))
        sent.append(subject.now(backend))
        await ctx.step.sleep("wait", 4 * unit)

    await subject.crash(sender, listener, where=at("after_send", "tell"))
    async with subject.open([sender, listener]) as backend:
        await (await backend.start(sender, run_id=subject.run_id())).result()
    assert len(received) == 1
    assert received[0] >= start + 2 * unit, "not before its time"
    assert received[0] < start + 4 * unit, "and not much later"
    assert sent[0] < start + 2 * unit, "sending does not wait"


@clause
async def test_c18_results_stand_in_the_order_of_the_arguments(subject: Subject) -> None:
    turn = [asyncio.Event() for _ in range(3)]
    ended: list[int] = []

    async def body(number: int) -> int:
        if number < 2:
            await turn[number + 1].wait()  # ends only after the one behind it: needs all three at once
        ended.append(number)
        turn[number].set()
        return number

    @function("gathered")
    async def gathered(ctx: Context[None]) -> list[int]:
        step = ctx.step
        return [*await step.gather(*[lambda n=n: step.run("work", body, n) for n in range(3)])]

    result, _ = await subject.run(gathered)
    assert result == [0, 1, 2]
    assert ended == [2, 1, 0]


@clause
async def test_c18_every_branch_ends_and_all_failures_come_as_one_group(subject: Subject) -> None:
    ended: list[str] = []
    caught: list[list[str]] = []

    async def body(name: str) -> str:
        await asyncio.sleep(0)
        ended.append(name)
        if name.startswith("bad"):
            raise ValueError(name)
        return name

    @function("mixed", retries=0)
    async def mixed(ctx: Context[None]) -> str:
        step = ctx.step

        async def long() -> str:
            await step.sleep("nap", subject.unit / 10)
            return await step.run("work", body, "good")

        try:
            await step.gather(lambda: step.run("work", body, "bad1"), long, lambda: step.run("work", body, "bad2"))
        except* StepError as group:
            caught.append([error.message for error in group.exceptions if isinstance(error, StepError)])
        return await step.run("last", _echo, "went on")

    assert await subject.crash(mixed, where=at("before_body", "last"))
    result, _ = await subject.run(mixed)
    assert result == "went on"
    assert sorted(ended) == ["bad1", "bad2", "good"]
    assert len(caught) >= 2
    assert caught == [["bad1", "bad2"]] * len(caught)


@clause
async def test_c18_a_crash_repeats_only_what_was_not_committed(subject: Subject) -> None:
    bodies: list[str] = []
    crashed = False
    begun = asyncio.Event()

    async def body(name: str) -> str:
        bodies.append(name)
        if name == "slow" and not crashed:
            begun.set()
            await asyncio.sleep(30)
        await begun.wait()
        return name

    @function("partly")
    async def partly(ctx: Context[None]) -> list[str]:
        step = ctx.step
        names = ("a", "slow", "c")
        return [*await step.gather(*[lambda n=n: step.run("work", body, n) for n in names])]

    assert await subject.crash(partly, where=at("after_commit", "gather[2]/work"))
    crashed = True
    result, _ = await subject.run(partly)
    assert result == ["a", "slow", "c"]
    assert bodies.count("c") == 1
    assert bodies.count("slow") == 2


@clause
async def test_c18_branches_without_steps_leave_nothing_to_replay(subject: Subject) -> None:
    @function("hollow")
    async def hollow(ctx: Context[None]) -> list[Any]:
        step = ctx.step

        async def nothing() -> str:
            return "nothing"

        first = [await step.gather(), await step.gather(nothing, nothing)]
        second = await step.gather(nothing, lambda: step.run("work", _echo, 1))
        return [*first, second, await step.run("last", _echo, 2)]

    assert await subject.crash(hollow, where=at("before_body", "last"))
    result, _ = await subject.run(hollow)
    assert result == [[], ["nothing", "nothing"], ["nothing", 1], 2]


@clause
async def test_c18_steps_begun_at_once_in_one_branch_are_refused(subject: Subject) -> None:
    begin: dict[str, Callable[[StepAPI, str], Awaitable[Any]]] = {
        "step": lambda step, key: step.run(key, _echo, key),
        "sync": lambda step, key: step.run(key, len, key),
        "send_event": lambda step, key: step.send_event(key, Event("c18/none")),
        "sleep": lambda step, key: step.sleep(key, 0),
        "invoke": lambda step, key: step.invoke(key, child),
    }

    @function("child")
    async def child(ctx: Context[Any]) -> None:
        pass

    @function("hasty", retries=0)
    async def hasty(ctx: Context[tuple[str, bool]]) -> None:
        kind, in_branch = ctx.input

        async def both() -> None:
            await asyncio.gather(begin[kind](ctx.step, "one"), begin[kind](ctx.step, "two"), return_exceptions=True)

        await (ctx.step.gather(both) if in_branch else both())

    for number, (kind, in_branch) in enumerate(product(begin, (False, True))):
        error, _ = await subject.fail(hasty, child, data=(kind, in_branch), number=number)
        assert isinstance(error, InvokeError)
        assert error.error_type == ConcurrentStepError.__name__, (kind, in_branch)
