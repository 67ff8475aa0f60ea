"""A conversation that grows too long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.core import (
    Agent,
    AgentInput,
    AgentResult,
    Compaction,
    DefinitionError,
    InvokeError,
    MemorySessions,
    assistant,
    tool,
    user,
)
from durably.core.conversation import Conversation
from durably.core.errors import ContextWindowExceededError
from durably.core.messages import AssistantMessage, Message, TextPart, ToolCall, ToolResultMessage, UserMessage
from durably.core.model import ModelRequest, ModelResponse, Usage
from durably.testing import ScriptedModel, crash_matrix
from tests.conftest import Open

WINDOW = 12


@tool
async def look(place: int) -> str:
    """Look at a place."""
    return f"{place} is empty"


class SmallWindow:
    """A model that refuses conversations of more than so many messages, and otherwise looks, then answers."""

    name = "small:window"

    def __init__(self, turns: int, window: int = WINDOW) -> None:
        self.turns = turns
        self.window = window
        self.requests: list[ModelRequest] = []

    async def complete(self, request: ModelRequest) -> ModelResponse:
        self.requests.append(replace(request, messages=list(request.messages)))
        if len(request.messages) > self.window:
            raise ContextWindowExceededError("too long", provider="small", model="window", status=400)
        if request.turn == self.turns:
            return ModelResponse(message=assistant("all empty"), usage=Usage(input_tokens=1))
        look = ToolCall(id=f"call_{request.turn}", name="look", arguments={"place": request.turn})
        return ModelResponse(
            message=AssistantMessage(parts=[look]), usage=Usage(input_tokens=10 * len(request.messages))
        )


def summarizer() -> ScriptedModel:
    return ScriptedModel(lambda request: f"<{len(text_of(request).splitlines())} lines>")


def text_of(request: ModelRequest) -> str:
    first = request.messages[0]
    assert isinstance(first, UserMessage)
    return str(first.content)


async def ask(open_backend: Open, agent: Agent, message: AgentInput | str = "look at 0 to 19") -> AgentResult:
    async with open_backend([agent]) as backend:
        return await backend.invoke(agent, message)


@pytest.mark.asyncio
@pytest.mark.parametrize("at_tokens", [None, 100])
async def test_a_long_conversation_is_summarised_and_goes_on(open_backend: Open, at_tokens: int | None) -> None:
    model, short = SmallWindow(20), summarizer()
    agent = Agent(
        "a",
        model=model,
        instructions="",
        tools=[look],
        max_iterations=30,
        compaction=Compaction(at_tokens=at_tokens, keep=4, model=short),
    )
    result = await ask(open_backend, agent)
    assert (result.text, result.iterations, result.tool_calls) == ("all empty", 21, 20)
    assert [m.content for m in result.messages if isinstance(m, ToolResultMessage)] == [
        f"{place} is empty" for place in range(20)
    ]
    assert result.messages[0] == user("look at 0 to 19")
    refused = sum(len(request.messages) > WINDOW for request in model.requests)
    assert bool(refused) is (at_tokens is None)
    assert len(short.requests) >= 3
    for request in model.requests:
        assert text_of(request).startswith("look at 0 to 19")
        assert_valid(request.messages)
    # Each summary is made from the one before and what was said since.
    assert "(summary of what came before)" in text_of(short.requests[1])
    assert result.usage.output_tokens == 5 * len(short.requests)


@pytest.mark.asyncio
async def test_a_crash_anywhere_summarises_nothing_twice() -> None:
    def fresh() -> Agent:
        return Agent("a", model=SmallWindow(4, window=5), instructions="", tools=[look], compaction=Compaction(keep=2))

    report = await crash_matrix(fresh, "look at 0 to 3")
    assert report.ok, report


@pytest.mark.asyncio
async def test_a_session_keeps_the_whole_conversation(open_backend: Open) -> None:
    sessions = MemorySessions()
    agent = Agent(
        "a",
        model=SmallWindow(8, window=7),
        instructions="",
        tools=[look],
        sessions=sessions,
        compaction=Compaction(keep=2, model=summarizer()),
    )
    result = await ask(open_backend, agent, AgentInput(message="look", session_key="s"))
    assert len(result.messages) == 18
    assert await sessions.load("s") == result.messages


@pytest.mark.asyncio
async def test_what_cannot_be_made_shorter_fails(open_backend: Open) -> None:
    agent = Agent("a", model=SmallWindow(1, window=0), instructions="", tools=[look], compaction=Compaction())
    with pytest.raises(InvokeError, match="ContextWindowExceededError: too long"):
        await ask(open_backend, agent)


@pytest.mark.asyncio
async def test_an_empty_summary_is_no_summary(open_backend: Open) -> None:
    short = ScriptedModel(lambda request: "" if len(short.requests) == 1 else "nothing was found")
    agent = Agent(
        "a",
        model=SmallWindow(4, window=5),
        instructions="",
        tools=[look],
        compaction=Compaction(keep=2, model=short),
    )
    assert (await ask(open_backend, agent)).text == "all empty"
    assert len(short.requests) == 2


@pytest.mark.asyncio
async def test_without_compaction_the_run_fails(open_backend: Open) -> None:
    agent = Agent("a", model=SmallWindow(9), instructions="", tools=[look])
    with pytest.raises(InvokeError, match="ContextWindowExceededError"):
        await ask(open_backend, agent)


@pytest.mark.parametrize("options", [{"keep": -1}, {"at_tokens": 0}])
def test_numbers_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(DefinitionError, match="keep must be 0 or more"):
        Compaction(**options)


def assert_valid(messages: object) -> None:
    """Each call has its result right behind it, and no result is without its call."""
    assert isinstance(messages, list)
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert message.call_id in open_calls
            open_calls.remove(message.call_id)
        else:
            assert open_calls == []
            open_calls = [each.id for each in message.tool_calls] if message.role == "assistant" else []
    assert open_calls == []


@st.composite
def turns(draw: st.DrawFn) -> list[list[Message]]:
    """Turns of a conversation: an answer with calls and their results, or a word of the user's."""
    made: list[list[Message]] = []
    for number in range(draw(st.integers(0, 8))):
        calls = [
            ToolCall(id=f"{number}.{index}", name="look", arguments={}) for index in range(draw(st.integers(0, 3)))
        ]
        results = [ToolResultMessage(call_id=each.id, name="look", content="empty") for each in calls]
        made.append([AssistantMessage(parts=[TextPart(text=f"turn {number}"), *calls]), *results])
        if draw(st.booleans()):
            made.append([user("go on")])
    return made


@given(
    before=turns(),
    during=st.lists(turns(), max_size=4),
    keep=st.integers(0, 9),
    files=st.booleans(),
)
def test_any_cut_leaves_a_valid_transcript(
    before: list[list[Message]], during: list[list[list[Message]]], keep: int, files: bool
) -> None:
    asked = UserMessage(content=[TextPart(text="the task")] if files else "the task")
    conversation = Conversation("", [message for turn in before for message in turn], asked)
    answers = conversation.transcript.turn
    for phase, said in enumerate(during):
        for turn in said:
            conversation.add(*turn)
            answers += sum(message.role == "assistant" for message in turn)
        seen = list(conversation.transcript.messages)
        older = conversation.older(keep)
        if older is None:
            continue
        conversation.compact(keep, f"summary {phase}")
        kept = conversation.transcript.messages
        assert_valid(kept)
        assert conversation.transcript.turn == answers
        first = kept[0]
        assert isinstance(first, UserMessage)
        assert "the task" in str(first.content)
        assert f"summary {phase}" in str(first.content)
        assert len(older.messages) + len(kept) == len(seen)
        assert kept[1:] == seen[len(seen) - len(kept) + 1 :]
    assert conversation.said[0] == asked
    assert len(conversation.said) == 1 + sum(len(turn) for said in during for turn in said)
