"""What an agent had spent when it failed counts for the one that asked it."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    Budget,
    Context,
    InvokeError,
    NonRetriableError,
    RetryAfterError,
    Trace,
    assistant,
    create_agent_loop,
    delegate,
    function,
    tool,
)
from durably.core.error_spending import SPENT
from durably.core.history import History
from durably.core.messages import AssistantMessage, ToolCall
from durably.core.model import ModelResponse, Usage
from durably.core.step_keys import KeyedSteps
from durably.testing import ScriptedModel, crash_matrix, replay
from tests.conftest import Open


@tool
async def look() -> str:
    """Look."""
    return "nothing"


def priced(cost: float, *names: str) -> ModelResponse:
    """An answer for 100 tokens, which calls tools or is the last."""
    calls = [
        ToolCall(id=f"{place}", name=name, arguments={} if name == "look" else {"task": "go"})
        for place, name in enumerate(names)
    ]
    message = AssistantMessage(parts=[*calls]) if calls else assistant("done")
    return ModelResponse(message=message, usage=Usage(input_tokens=100), cost=cost)


def agent(name: str, *replies: Any, tools: Any = (), **options: Any) -> Agent:
    options.setdefault("retries", 0)
    return Agent(name, model=ScriptedModel(*replies), instructions="", tools=tools, **options)


def failing(name: str = "expert", cost: float = 0.5) -> Agent:
    """An agent that takes one turn and fails in the next."""
    return agent(name, priced(cost, "look"), NonRetriableError("closed"), tools=[look])


@pytest.mark.asyncio
async def test_what_a_failed_delegate_spent_is_part_of_the_result(open_backend: Open) -> None:
    top = agent("top", priced(1, "ask_expert"), priced(2), tools=[delegate(failing())])
    async with open_backend([top]) as backend:
        run = await backend.start(top, "go")
        result = await run.result()
        trace = Trace.of(await run.history())
    assert (result.usage.input_tokens, result.cost) == (300, 3.5)
    assert (trace.usage, trace.cost) == (result.usage, result.cost)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("budget", "ending"),
    [
        (Budget(cost=1.6), "completed"),
        (Budget(cost=1.5), "budget"),
        (Budget(tokens=201), "completed"),
        (Budget(tokens=200), "budget"),
        (Budget(tool_calls=3), "completed"),
        (Budget(tool_calls=2), "budget"),
    ],
)
async def test_and_counts_for_the_budget(budget: Budget, ending: str) -> None:
    asks = delegate(failing(), share_budget=False)
    top = agent("top", priced(1, "ask_expert"), priced(2), tools=[asks], budget=budget)
    async with MemoryBackend([top]) as backend:
        assert (await backend.invoke(top, "go")).stop_reason == ending


@pytest.mark.asyncio
async def test_what_a_turn_spent_that_fails_the_run_is_told() -> None:
    """Of two agents that are asked at once one answers, and the failure of the other fails the run."""
    tools = [delegate(agent("expert", priced(4))), delegate(failing("clerk", 8), on_error="raise")]
    top = agent("top", priced(1, "ask_expert", "ask_clerk"), tools=tools)
    async with MemoryBackend([top]) as backend:
        with pytest.raises(InvokeError) as raised:
            await backend.invoke(top, "go")
    told = raised.value.spent
    assert told is not None
    assert (told["usage"]["input_tokens"], told["cost"], told["tool_calls"]) == (300, 13, 3)
    assert pickle.loads(pickle.dumps(raised.value)).spent == told


@pytest.mark.asyncio
async def test_an_agent_that_fails_before_its_first_answer_has_spent_nothing() -> None:
    top = agent("top", priced(1, "ask_expert"), priced(2), tools=[delegate(agent("expert", NonRetriableError("no")))])
    async with MemoryBackend([top]) as backend:
        result = await backend.invoke(top, "go")
    assert (result.usage.input_tokens, result.cost) == (200, 3)


@pytest.mark.asyncio
async def test_a_function_that_runs_an_agent_tells_it_too() -> None:
    expert = failing()

    @function("desk", retries=0)
    async def desk(ctx: Context[str]) -> str:
        return (await ctx.step.invoke("ask", expert, "go")).text

    @function("loops", retries=0)
    async def loops(ctx: Context[None]) -> str:
        return (await create_agent_loop(expert, "go")(ctx.step, ctx.logger)).text

    for each, arguments in ((loops, {}), (desk, {"input": "go"})):
        called = ToolCall(id="1", name=each.id, arguments=arguments)
        asks = ModelResponse(message=AssistantMessage(parts=[called]), cost=1)
        top = agent("top", asks, priced(2), tools=[each])
        async with MemoryBackend([top, expert]) as backend:
            assert (await backend.invoke(top, "go")).cost == 3.5


@pytest.mark.asyncio
async def test_a_failure_that_was_recorded_before_says_nothing() -> None:
    """Records of earlier versions hold no such number: the cost is unknown, as it was when they were written."""
    top = agent("top", priced(1, "ask_expert"), priced(2), tools=[delegate(failing())])
    async with MemoryBackend([top]) as backend:
        run = await backend.start(top, "go")
        await run.result()
        history = await run.history()
    assert SPENT in history.to_jsonl()
    for record in history:
        if record.error is not None:
            record.error.pop(SPENT, None)
    lines = history.to_jsonl().replace(r"\"input_tokens\":300", r"\"input_tokens\":200")
    old = History.from_jsonl(lines.replace(r"\"cost\":3.5", r"\"cost\":null"))
    assert SPENT not in old.to_jsonl()
    result = await replay(old, [top])
    assert (result.usage.input_tokens, result.cost) == (200, None)


@pytest.mark.asyncio
async def test_no_crash_changes_what_is_told() -> None:
    def top() -> Agent:
        middle = agent("middle", priced(1, "ask_expert"), tools=[delegate(failing(), on_error="raise")])
        return agent("top", priced(2, "ask_middle"), priced(4), tools=[delegate(middle)], budget=Budget(cost=100))

    report = await crash_matrix(top, "go")
    assert report.ok, report
    assert not report.error, report


def cut_off(*, inner: Agent | None = None) -> Agent:
    """An agent that takes a turn, and waits in the next for longer than it is given."""
    busy = RetryAfterError("busy", delay=3600)
    if inner is None:
        return agent("slow", priced(0.5, "look"), busy, tools=[look], retries=3)
    return agent("slow", priced(0.5, "look"), priced(0.25, "ask_inner"), "never", tools=[look, delegate(inner)])


@pytest.mark.asyncio
@pytest.mark.parametrize("nested", [False, True])
async def test_what_an_agent_spent_until_it_was_cut_off_counts(open_backend: Open, nested: bool) -> None:
    inner = agent("inner", priced(8, "look"), RetryAfterError("busy", delay=3600), tools=[look], retries=3)
    slow = cut_off(inner=inner if nested else None)
    top = agent("top", priced(1, "ask_slow"), priced(2), tools=[delegate(slow, timeout=0.3)])
    async with open_backend([top]) as backend:
        run = await backend.start(top, "go")
        result = await run.result()
        again = await (await backend.run(run.id)).result()
        trace = Trace.of(await run.history())
    tokens, cost, calls = (500, 11.75, 1) if nested else (300, 3.5, 1)
    assert (result.usage.input_tokens, result.cost, result.tool_calls) == (tokens, cost, calls)
    assert (trace.usage, trace.cost) == (result.usage, result.cost)
    assert again == result
    assert "longer than" in str(result.messages[2])


@pytest.mark.asyncio
async def test_what_was_counted_before_a_cut_off_is_not_counted_again() -> None:
    """An agent is cut off that had gone on after one which it asked was cut off."""
    inner = agent("inner", priced(8, "look"), RetryAfterError("busy", delay=3600), tools=[look], retries=3)
    replies = [priced(0.5, "ask_inner"), RetryAfterError("busy", delay=3600)]
    slow = agent("slow", *replies, tools=[delegate(inner, timeout=60)], retries=3)
    top = agent("top", priced(1, "ask_slow"), priced(2), tools=[delegate(slow, timeout=600)])
    async with MemoryBackend([top]) as backend:
        result = await backend.invoke(top, "go")
    assert (result.usage.input_tokens, result.cost) == (400, 11.5)


@pytest.mark.asyncio
async def test_so_does_that_of_one_that_was_cancelled_by_somebody(open_backend: Open) -> None:
    top = agent("top", priced(1, "ask_slow"), priced(2), tools=[delegate(cut_off())], budget=Budget(cost=1.5))
    async with open_backend([top]) as backend:
        run = await backend.start(top, "go")
        child: Any = None
        while child is None or len((await child.history()).steps()) < 4:
            await asyncio.sleep(0.005)
            child = next(iter(await backend.runs(function="slow")), None)
        await child.cancel()
        result = await run.result()
    assert (result.cost, result.stop_reason) == (1.5, "budget")


@pytest.mark.asyncio
async def test_no_crash_changes_what_is_counted_of_one_that_was_cut_off() -> None:
    def top() -> Agent:
        return agent("top", priced(1, "ask_slow"), priced(2), tools=[delegate(cut_off(), timeout=60)])

    report = await crash_matrix(top, "go")
    assert report.ok, report
    assert not report.error, report


@pytest.mark.asyncio
async def test_a_run_that_an_earlier_version_took_past_a_cut_off_goes_on_without_the_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    top = agent("top", priced(1, "ask_slow"), priced(2), tools=[delegate(cut_off(), timeout=60)])
    with monkeypatch.context() as before:
        before.setattr(KeyedSteps, "patched", lambda *_: False)
        async with MemoryBackend([top]) as backend:
            run = await backend.start(top, "go")
            assert (await run.result()).cost is None
            old = await run.history()
    result = await replay(old, [top])
    assert (result.usage.input_tokens, result.cost) == (200, None)
