"""What an agent is told to do besides, on every engine: hooks, limits, pruning, saved summaries, checked answers."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import pytest

from durably.core import (
    Agent,
    AgentInput,
    Budget,
    Compaction,
    Hooks,
    MemorySessions,
    Refusal,
    Singleton,
    delegate,
    tool,
    user,
)
from durably.core.errors import UnsupportedFeatureError
from durably.core.messages import SessionNote, ToolCall, ToolResultMessage
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call
from tests.conftest import Open


@tool
def look(place: int) -> str:
    """Look at a place."""
    return f"{place}: " + "word " * 100


class Guard(Hooks):
    """Lets nobody look at the first place."""

    async def before_tool(self, call: ToolCall) -> Refusal | None:
        return Refusal(reason="not there") if call.arguments == {"place": 0} else None

    def after_tool(self, call: ToolCall, outcome: object) -> str:
        return f"{outcome} (seen)"


def at_least_two(places: list[int]) -> None:
    if len(places) < 2:
        raise ValueError("look at two places at least")


@pytest.mark.asyncio
async def test_all_of_them_work_together(open_backend: Open) -> None:
    store = MemorySessions()
    await store.append("s", [user("before")], key="1")
    seen: list[ModelRequest] = []

    def answer(request: ModelRequest) -> Any:
        seen.append(request)
        turn = sum(message.role == "assistant" for message in request.messages)
        return (
            [call("look", place=turn) for _ in range(2)] if turn < 2 else "[1]" if turn == 2 else '{"answer": [1, 2]}'
        )

    agent = Agent(
        "everything",
        model=ScriptedModel(answer),
        instructions="Look.",
        tools=[look],
        hooks=[Guard()],
        output_type=list[int],
        output_validator=at_least_two,
        budget=Budget(tool_calls=5, time="1h"),
        sessions=store,
    )
    async with open_backend([agent]) as backend:
        run = await backend.start(agent, AgentInput(message="Where is it?", session_key="s"))
        result = await run.result()
        keys = {record.step_id for record in (await run.history()).steps()}
    assert (result.output, result.stop_reason, result.tool_calls) == ([1, 2], "completed", 4)
    assert {"before-tool-look", "after-tool-look", "check-output", "check-time"} <= keys
    told = [message.content for message in seen[-1].messages if isinstance(message, ToolResultMessage)]
    assert told[:2] == ["not there", "not there"]
    assert all(str(each).endswith("(seen)") for each in told[2:])
    assert [bool(request.reminder) for request in seen] == [False, False, True, True], "from four of five calls on"
    assert {request.system for request in seen} == {"Look."}


@pytest.mark.asyncio
async def test_results_are_left_out_and_a_summary_is_kept(open_backend: Open) -> None:
    store = MemorySessions()
    await store.append("s", [user("before")], key="1")
    model = ScriptedModel(lambda request: "done" if len(requests) > 4 else call("look", place=request.turn))
    requests = model.requests
    compaction = Compaction(at_tokens=1, keep=1, model=ScriptedModel(lambda request: "in short"), prune=True, save=True)
    agent = Agent("pruner", model=model, instructions="", tools=[look], compaction=compaction, sessions=store)
    async with open_backend([agent]) as backend:
        assert (await backend.invoke(agent, AgentInput(message="go", session_key="s"))).text == "done"
    results = [
        message for request in requests for message in request.messages if isinstance(message, ToolResultMessage)
    ]
    assert any("left out to save room" in str(message.content) for message in results)
    assert SessionNote(summary="in short", appends=1) in await store.load("s")


@pytest.mark.asyncio
async def test_a_delegate_draws_on_the_budget(open_backend: Open) -> None:
    helper = Agent(
        "drawing-helper",
        model=ScriptedModel(lambda request: call("look", place=request.turn)),
        instructions="",
        tools=[look],
    )
    agent = Agent(
        "drawing",
        model=ScriptedModel(call("ask_drawing-helper", task="look"), "done"),
        instructions="",
        tools=[delegate(helper)],
        budget=Budget(tool_calls=3),
    )
    async with open_backend([agent]) as backend:
        result = await backend.invoke(agent, "go")
    assert result.stop_reason == "budget"
    (told,) = [message for message in result.messages if isinstance(message, ToolResultMessage)]
    assert "ended before it was done (budget)" in str(told.content)


@pytest.mark.asyncio
async def test_delegates_that_are_asked_at_once_divide_the_budget(open_backend: Open) -> None:
    seeker = Agent(
        "dividing-seeker",
        model=ScriptedModel(lambda request: call("look", place=request.turn)),
        instructions="",
        tools=[look],
    )
    ask = call("ask_dividing-seeker", task="look")
    agent = Agent(
        "dividing",
        model=ScriptedModel([ask, ask], "done"),
        instructions="",
        tools=[delegate(seeker)],
        budget=Budget(tool_calls=6),
    )
    async with open_backend([agent]) as backend:
        result = await backend.invoke(agent, "go")
        children = [await each.result() for each in await backend.runs(function=seeker.id)]
    # Of six calls, two ask; the four that are left are two for each.
    assert [(each.tool_calls, each.stop_reason) for each in children] == [(2, "budget")] * 2
    assert result.stop_reason == "budget"


@pytest.mark.asyncio
async def test_what_an_engine_cannot_do_is_refused_when_it_is_made(open_backend: Open) -> None:
    made: dict[str, Any] = {"model": ScriptedModel("hi"), "instructions": ""}
    may_be_refused = {"keeps", "steers", "queues"}
    agents = [
        Agent("keeps", sessions="backend", **made),
        Agent("steers", sessions=MemorySessions(), on_message="steer", **made),
        Agent("queues", on_message="queue", **made),
        Agent("cancels", on_message="cancel", **made),
    ]
    assert agents[2].singleton == Singleton("session_key", mode="queue")
    for agent in agents:
        with suppress(UnsupportedFeatureError) if agent.id in may_be_refused else nullcontext():
            async with open_backend([agent]) as backend:
                asked = AgentInput(message="hi", session_key=agent.id)
                assert (await backend.invoke(agent, asked)).text == "hi"
