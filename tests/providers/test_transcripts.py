"""Any conversation goes out as a request that the strict server accepts, and comes back equal."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.core import assistant, user
from durably.core.messages import (
    AssistantMessage,
    AssistantPart,
    ContentPart,
    FilePart,
    Message,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest, ModelResponse, StreamingModel
from durably.core.steps import StepInfo, _current
from durably.providers import anthropic_messages, chat, litellm, responses
from durably.providers.transcript import EMPTY, GOES_ON, NO_RESULT, repaired
from durably.testing.models.llm_server import LLMServer
from durably.testing.models.wire import anthropic as anthropic_wire
from durably.testing.models.wire import chat as chat_wire
from durably.testing.models.wire import responses as responses_wire
from tests.providers.cases import ANTHROPIC, CHAT, LITELLM_ANTHROPIC, LITELLM_OPENAI, RESPONSES, Case, ask, question

HEADERS = {"x-api-key": "k", "anthropic-version": "v", "authorization": "Bearer k"}

text = st.text(max_size=12)
names = st.sampled_from(["weather", "a.b c", "Größe", "x" * 80, ""])
ids = st.sampled_from(["a", "b", "c", "", "call|1", "y" * 60])
data = st.binary(min_size=1, max_size=6).map(lambda raw: base64.b64encode(raw).decode())
media = st.sampled_from(["image/png", "image/webp", "image/tiff", "application/pdf", "audio/wav", "text/csv"])
files = st.builds(
    FilePart,
    media_type=media,
    data=st.none() | data,
    url=st.sampled_from([None, "https://x.test/f"]),
    name=st.none() | text,
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
arguments = st.dictionaries(text, scalars | st.lists(scalars, max_size=2), max_size=2)
content = text | st.lists(st.builds(TextPart, text=text) | files, max_size=3)
reasoning = st.builds(
    lambda key: OpaquePart(data={"type": "reasoning", "id": f"rs_{key}", "summary": [], "encrypted_content": "x=="}),
    st.integers(0, 9),
)
redacted = st.builds(lambda key: OpaquePart(data={"type": "redacted_thinking", "data": key}), text)
texts = st.builds(TextPart, text=text)
calls = st.builds(ToolCall, id=ids, name=names, arguments=arguments | text)
refusals = st.builds(RefusalPart, text=text)


def signed(thought: str) -> ThinkingPart:
    """No two thoughts have one signature."""
    return ThinkingPart(text=thought, signature=f"{thought.encode().hex()}==")


native: dict[str, st.SearchStrategy[Any]] = {
    "anthropic": texts
    | st.builds(TextPart, text=text, native=st.just({"citations": [{"type": "char_location"}]}))
    | st.builds(ThinkingPart, text=text, signature=st.none() | st.just("signed=="))
    | redacted,
    "openai": texts
    | st.builds(TextPart, text=text, native=st.sampled_from([{"id": "msg_1"}, {"id": "msg_2"}]))
    | reasoning,
    "openai-chat": texts | st.builds(ThinkingPart, text=text),
    "litellm:openai": texts | st.builds(ThinkingPart, text=text),
    "litellm:anthropic": texts
    | st.builds(ThinkingPart, text=text, signature=st.none() | st.just("signed=="))
    | redacted,
    "elsewhere": texts
    | st.builds(ThinkingPart, text=text, signature=st.just("foreign"))
    | st.builds(TextPart, text=text, native=st.just({"from": "elsewhere"}))
    | st.just(OpaquePart(data={"type": "foreign"})),
}


def answers(provider: str) -> st.SearchStrategy[AssistantMessage]:
    # litellm hands an id back as it got it, so its own are such as a provider gives.
    asked = calls.filter(lambda call: call.id in ("a", "b", "c")) if provider.startswith("litellm") else calls
    parts = st.lists(native[provider] | asked | refusals, max_size=4)
    return st.builds(AssistantMessage, parts=parts, provider=st.just(provider))


results = st.builds(ToolResultMessage, call_id=ids, name=names, content=content, is_error=st.booleans())
messages = st.lists(
    st.builds(UserMessage, content=content) | results | st.sampled_from(sorted(native)).flatmap(answers), max_size=7
)

DIALECTS = {
    "anthropic": (anthropic_messages.DIALECT, anthropic_wire),
    "openai-chat": (chat.DIALECT, chat_wire),
    "openai-responses": (responses.DIALECT, responses_wire),
}


def body(name: str, request: ModelRequest) -> dict[str, Any]:
    if name == "anthropic":
        return anthropic_messages.request_body(request, model="m", max_tokens=10)
    if name == "openai-chat":
        return chat.request_body(request, model="m", dialect=chat.DIALECT, native_output=True)
    return responses.request_body(request, model="m", reasons=False)


def unsigned(messages: Sequence[Message]) -> list[Message]:
    """The messages without a note of who made them, which no wire carries."""
    return [
        message.model_copy(update={"provider": None}) if isinstance(message, AssistantMessage) else message
        for message in messages
    ]


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=200, deadline=None)
@given(messages=messages)
def test_any_transcript_is_accepted_and_comes_back_equal(name: str, messages: list[Message]) -> None:
    dialect, wire = DIALECTS[name]
    heard = wire.parse(body(name, ModelRequest(system="s", messages=messages)), HEADERS)
    assert in_blocks(heard.messages) == in_blocks(unsigned(repaired(messages, dialect)))


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=100, deadline=None)
@given(messages=messages, extra=messages)
def test_repair_changes_nothing_twice_and_keeps_the_beginning(
    name: str, messages: list[Message], extra: list[Message]
) -> None:
    dialect, _ = DIALECTS[name]
    once = repaired(messages, dialect)
    assert repaired(once, dialect) == once
    # What follows a user's message has no say in what came before: the provider's cache stays good.
    before = repaired([*messages, user("and then")], dialect)
    assert repaired([*messages, user("and then"), assistant("ok"), *extra], dialect)[: len(before)] == before


def in_blocks(messages: Sequence[Message]) -> list[Message]:
    """The same messages with every text in a block: a breakpoint of the cache stands on a block, not on a text."""
    return [
        message
        if isinstance(message, AssistantMessage) or not isinstance(message.content, str)
        else message.model_copy(update={"content": [TextPart(text=message.content)]})
        for message in messages
    ]


@asynccontextmanager
async def reused(case: Case, server: LLMServer) -> AsyncIterator[StreamingModel]:
    async with case.reused(server) as (model, resources):
        token = _current.set(StepInfo("run", "think", 1, resources))
        try:
            yield model
        finally:
            _current.reset(token)


def as_litellm_says(messages: Sequence[Message]) -> list[Message]:
    """What litellm makes of a conversation for Claude.

    Texts are lists of one, and messages of one role are joined. What is lost is this: the names of files, white space
    at the end of what the assistant said last, and a thought that is there twice, which it knows by its signature.
    """
    made: list[Message] = []
    for message in messages:
        last = made[-1] if made else None
        if isinstance(message, AssistantMessage):
            before = last.parts if isinstance(last, AssistantMessage) else []
            if before:
                made.pop()
            made.append(AssistantMessage(parts=list(_once([*before, *message.parts]))))
            continue
        content = _listed(message.content)
        if isinstance(message, UserMessage) and isinstance(last, UserMessage):
            made[-1] = UserMessage(content=[*_listed(last.content), *content])
        else:
            made.append(message.model_copy(update={"content": content}))
    if isinstance(made[-1], AssistantMessage):
        made[-1] = AssistantMessage(
            parts=[
                TextPart(text=part.text.rstrip(), native=part.native) if isinstance(part, TextPart) else part
                for part in made[-1].parts
            ]
        )
    return made


def _listed(content: str | Sequence[ContentPart]) -> list[ContentPart]:
    parts = [TextPart(text=content)] if isinstance(content, str) else content
    return [part.model_copy(update={"name": None}) if isinstance(part, FilePart) else part for part in parts]


def _once(parts: Sequence[AssistantPart]) -> Iterator[AssistantPart]:
    seen: list[object] = []
    for part in parts:
        thought = (part.signature or part) if isinstance(part, ThinkingPart) else part
        if not (isinstance(part, ThinkingPart | OpaquePart) and thought in seen):
            yield part
        seen.append(thought)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(messages, min_size=1, max_size=4))
def test_any_transcript_goes_through_the_real_sdk(case: Case, script: list[list[Message]]) -> None:
    async def check() -> None:
        async with LLMServer(lambda asked: "ok") as server, reused(case, server) as model:
            for each in script:
                response = await model.complete(question(*each))
                assert response.message.text == "ok"
            assert len(server.requests) == len(script)
            for each, heard in zip(script, server.requests, strict=True):
                said = unsigned(repaired(each, DIALECTS_BY_CASE[case]))
                if case is LITELLM_ANTHROPIC:
                    assert as_litellm_says(heard.messages) == as_litellm_says(said)
                else:
                    assert in_blocks(heard.messages) == in_blocks(said)

    asyncio.run(check())


DIALECTS_BY_CASE = {
    ANTHROPIC: anthropic_messages.DIALECT,
    CHAT: chat.DIALECT,
    RESPONSES: responses.DIALECT,
    LITELLM_OPENAI: litellm.dialect("openai/gpt-5", "litellm:openai"),
    LITELLM_ANTHROPIC: litellm.dialect("anthropic/claude-opus-4-6", "litellm:anthropic"),
}

some_text = st.text(min_size=1, max_size=30)
good_calls = st.builds(ToolCall, id=st.uuids().map(str), name=st.just("weather"), arguments=arguments)
own_parts: dict[str, st.SearchStrategy[Any]] = {
    "anthropic": st.builds(TextPart, text=some_text)
    | good_calls
    | st.builds(ThinkingPart, text=text, signature=st.just("signed=="))
    | redacted,
    "openai-chat": good_calls,
    "openai-responses": st.integers(0, 99).flatmap(
        lambda key: (
            st.builds(TextPart, text=some_text, native=st.just({"id": f"msg_{key}"}))
            | st.builds(lambda call: call.model_copy(update={"native": {"id": f"fc_{key}"}}), good_calls)
            | reasoning
        )
    ),
}


@pytest.mark.parametrize("case", [ANTHROPIC, CHAT, RESPONSES], ids=lambda case: case.id)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_answer_comes_in_equal_streamed_and_whole(case: Case, data: st.DataObject) -> None:
    parts: list[AssistantPart] = data.draw(st.lists(own_parts[case.id], min_size=1, max_size=4))
    if case is CHAT:
        parts = [TextPart(text=data.draw(some_text)), *parts]

    async def check() -> None:
        said = ModelResponse(message=AssistantMessage(parts=parts))
        async with LLMServer(said) as server, reused(case, server) as model:
            for streamed in (False, True):
                response, _ = await ask(model, question(user("?")), streamed)
                assert response.message == AssistantMessage(parts=parts, provider=case.origin)

    asyncio.run(check())


def test_unpaired_calls_get_a_result_and_orphans_become_words() -> None:
    asked = AssistantMessage(parts=[ToolCall(id="a", name="t", arguments={}), ToolCall(id="b", name="t", arguments={})])
    late = ToolResultMessage(call_id="b", name="t", content="B")
    gone = ToolResultMessage(call_id="z", name="t", content="Z")
    made = repaired([user("go"), asked, user("hurry"), late, gone], anthropic_messages.DIALECT)
    assert made[2:] == [
        ToolResultMessage(call_id="a", name="t", content=NO_RESULT, is_error=True),
        late,
        user("hurry"),
        UserMessage(content=[TextPart(text="[result of an earlier call of t]"), TextPart(text="Z")]),
    ]


def test_repeated_ids_are_told_apart_in_order() -> None:
    asked = AssistantMessage(parts=[ToolCall(id="", name="t", arguments={"n": n}) for n in range(3)])
    answered = [ToolResultMessage(call_id="", name="t", content=str(n)) for n in range(3)]
    made = repaired([user("go"), asked, *answered], responses.DIALECT)
    ids = [call.id for call in made[1].tool_calls]  # type: ignore[union-attr]
    assert len(set(ids)) == 3
    assert [(each.call_id, each.content) for each in made[2:]] == list(zip(ids, "012", strict=True))  # type: ignore[union-attr]


def test_foreign_thoughts_are_dropped_and_empty_answers_kept_in_place() -> None:
    foreign = AssistantMessage(parts=[ThinkingPart(text="hm", signature="x")], provider="elsewhere")
    made = repaired([foreign, user("?")], anthropic_messages.DIALECT)
    assert [message.content if isinstance(message, UserMessage) else message.text for message in made] == [  # type: ignore[union-attr]
        GOES_ON,
        EMPTY,
        "?",
    ]
