"""Long work: budgets of calls and time, what the model is told of the end, and pruning before a summary."""

from __future__ import annotations

from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import (
    Agent,
    AgentInput,
    Budget,
    Compaction,
    DefinitionError,
    MemorySessions,
    ToolContext,
    assistant,
    delegate,
    tool,
    user,
)
from durably.core.errors import ContextWindowExceededError
from durably.core.messages import AssistantMessage, Message, ToolCall, ToolResultMessage
from durably.core.model import ModelRequest
from durably.core.pruning import can_be_pruned, pruned
from durably.testing import ScriptedModel, call, crash_matrix, replay

LONG = "word " * 100


@tool
def look(place: int) -> str:
    """Look at a place."""
    return f"{place}: {LONG}"


def forever(request: ModelRequest) -> Any:
    return call("look", place=request.turn)


def agent_of(model: ScriptedModel, **options: Any) -> Agent:
    return Agent("a", model=model, instructions="Help.", tools=[look], max_iterations=30, **options)


@pytest.mark.asyncio
async def test_a_budget_of_calls_ends_a_run_and_warns_before() -> None:
    model = ScriptedModel(forever)
    agent = agent_of(model, budget=Budget(tool_calls=5))
    async with MemoryBackend([agent], evict="always") as backend:
        result = await backend.invoke(agent, "go")
    assert (result.stop_reason, result.tool_calls, result.iterations) == ("budget", 5, 5)
    told = [request.reminder for request in model.requests]
    assert told == ["", "", "", "", "80% of your budget is spent. Bring the work to an end."]
    assert {request.system for request in model.requests} == {"Help."}
    for earlier, later in zip(model.requests, model.requests[1:], strict=False):
        assert list(later.messages[: len(earlier.messages)]) == earlier.messages, "what was said never changes"


@pytest.mark.asyncio
async def test_a_budget_of_time_is_read_in_steps() -> None:
    clock = VirtualClock()

    @tool
    async def wait_long() -> str:
        """Wait."""
        clock._now += 60
        return "done"

    model = ScriptedModel(lambda request: call("wait_long"))
    agent = Agent("a", model=model, instructions="", tools=[wait_long], budget=Budget(time="150s"))
    async with MemoryBackend([agent], clock=clock, evict="always") as backend:
        run = await backend.start(agent, "go")
        result = await run.result()
        keys = [record.key for record in (await run.history()).steps()]
    assert (result.stop_reason, result.iterations) == ("budget", 3)
    assert [key for key in keys if key.startswith("check-time")] == [
        "check-time",
        "check-time:1",
        "check-time:2",
        "check-time:3",
    ]
    assert model.requests[-1].reminder.startswith("80% of your budget")


@pytest.mark.asyncio
async def test_what_a_delegate_calls_counts() -> None:
    helper = Agent(
        "helper",
        model=ScriptedModel([call("look", place=1), call("look", place=2)], "nothing"),
        instructions="",
        tools=[look],
    )
    model = ScriptedModel(lambda request: call("ask_helper", task="look"))
    agent = Agent("a", model=model, instructions="", tools=[delegate(helper)], budget=Budget(tool_calls=6))
    async with MemoryBackend([agent]) as backend:
        result = await backend.invoke(agent, "go")
    assert (result.stop_reason, result.iterations, result.tool_calls) == ("budget", 2, 2)


@pytest.mark.parametrize(
    "options", [{}, {"tool_calls": 0}, {"time": 0}, {"time": "soon"}, {"tokens": 1, "warn_at": 0}, {"warn_at": 0.5}]
)
def test_a_budget_that_says_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        Budget(**options)


# -- pruning


def told(request: ModelRequest) -> list[str]:
    return [
        "left out" if "left out to save room" in str(message.content) else "whole"
        for message in request.messages
        if isinstance(message, ToolResultMessage)
    ]


@pytest.mark.asyncio
async def test_old_results_are_left_out_before_a_summary_is_made() -> None:
    model = ScriptedModel(lambda request: "done" if request.turn == 5 else call("look", place=request.turn))
    summariser = ScriptedModel(lambda request: "Nothing so far.")
    compaction = Compaction(at_tokens=1, keep=2, model=summariser, prune=True)
    agent = agent_of(model, compaction=compaction)
    async with MemoryBackend([agent], evict="always") as backend:
        run = await backend.start(agent, "go")
        result = await run.result()
        keys = [record.key for record in (await run.history()).steps()]
        assert (await run.trace()).conversations[0].exact
    assert [told(request) for request in model.requests[:3]] == [[], ["whole"], ["left out", "whole"]]
    assert keys.index("compact") > keys.index("think:2")
    assert all(LONG in str(message) for message in result.messages if message.role == "tool"), "they are kept"


@pytest.mark.asyncio
async def test_a_conversation_that_is_too_long_is_pruned_first() -> None:
    def answer(request: ModelRequest) -> Any:
        if sum(len(str(message)) for message in request.messages) > 2_000:
            raise ContextWindowExceededError("too long", provider="p", model="m")
        return "done" if request.turn == 5 else call("look", place=request.turn)

    model = ScriptedModel(answer)
    agent = agent_of(model, compaction=Compaction(keep=2, model=ScriptedModel(), prune=True), retries=0)
    async with MemoryBackend([agent]) as backend:
        result = await backend.invoke(agent, "go")
    assert result.text == "done"


@pytest.mark.asyncio
async def test_results_of_earlier_runs_of_the_session_are_left_out_too() -> None:
    store = MemorySessions()
    asked = AssistantMessage(parts=[ToolCall(id="1", name="look", arguments={"place": 1})])
    before: list[Message] = [
        user("a"),
        asked,
        ToolResultMessage(call_id="1", name="look", content=LONG),
        assistant("b"),
    ]
    await store.append("s", before, key="1")
    model = ScriptedModel(lambda request: "done" if request.messages[-1].role == "tool" else call("look", place=9))
    agent = agent_of(model, compaction=Compaction(at_tokens=1, keep=2, prune=True), sessions=store)
    async with MemoryBackend([agent]) as backend:
        await backend.invoke(agent, AgentInput(message="go", session_key="s"))
    assert [told(request) for request in model.requests] == [["whole"], ["left out", "whole"]]


def test_what_is_short_stays() -> None:
    short = ToolResultMessage(call_id="1", name="look", content="yes")
    assert not can_be_pruned([user(LONG), short])
    assert pruned([short, user(LONG)], 0) == [short, user(LONG)]


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_warned_and_pruned_run_is_the_same_wherever_it_crashes(backend: str) -> None:
    def world() -> Agent:
        compaction = Compaction(at_tokens=1, keep=2, model=ScriptedModel(lambda request: "short"), prune=True)
        return agent_of(ScriptedModel(forever), budget=Budget(tool_calls=3), compaction=compaction)

    report = await crash_matrix(world, "go", backend=backend)
    assert report.ok, report


def asking(**options: Any) -> tuple[Agent, Agent]:
    """An agent with a budget, and the one that it asks."""
    helper_model = ScriptedModel(lambda request: call("look", place=request.turn) if request.turn < 5 else "done")
    helper = Agent("helper", model=helper_model, instructions="", tools=[look])
    model = ScriptedModel(call("ask_helper", task="look"), "done")
    asks = delegate(helper, **options)
    return Agent("a", model=model, instructions="", tools=[asks], budget=Budget(tool_calls=4, time="1h")), helper


@pytest.mark.parametrize(("options", "looked"), [({}, 3), ({"share_budget": False}, 5)])
@pytest.mark.asyncio
async def test_a_delegate_draws_on_the_budget_of_who_asks(options: dict[str, Any], looked: int) -> None:
    agent, _ = asking(**options)
    async with MemoryBackend([agent]) as backend:
        await backend.invoke(agent, "go")
        (child,) = await backend.runs(function="helper")
        result = await child.result()
    assert (result.tool_calls, result.stop_reason) == (looked, "completed" if options else "budget")


@pytest.mark.asyncio
async def test_a_run_of_before_goes_on_with_delegates_that_share_nothing() -> None:
    before, helper = asking(share_budget=False)  # as every delegate was
    now, _ = asking()
    async with MemoryBackend([before]) as backend:
        run = await backend.start(before, "go")
        recorded = (await run.result()).text
        history = await run.history()
    assert (await replay(history, [now, helper])).text == recorded


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_run_ends_by_its_budget_of_time_wherever_it_crashes(backend: str) -> None:
    @tool(steps=True)
    async def nap(ctx: ToolContext) -> str:
        """Rest for a minute."""
        await ctx.step.sleep("rest", "60s")
        return "rested"

    def world() -> Agent:
        model = ScriptedModel(lambda request: call("nap"))
        return Agent("a", model=model, instructions="", tools=[nap], budget=Budget(time="150s"))

    report = await crash_matrix(world, "go", backend=backend)
    assert report.ok, report
    assert not report.error, report
    assert [step.key for step in report.steps if step.key.startswith("check-time")] == [
        "check-time",
        "check-time:1",
        "check-time:2",
        "check-time:3",
    ]
