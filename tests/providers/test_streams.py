"""A stream ends in the answer that the same request gets whole, or in an error; its pieces make up that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.core import ModelError, user
from durably.core.messages import AssistantMessage, RefusalPart, TextPart, ThinkingPart, ToolCall
from durably.core.model import Delta, ModelResponse, StopReason, Usage
from durably.providers.calls import parse_arguments
from durably.testing.models.llm_server import Fault, LLMServer
from durably.testing.models.wire import anthropic, chat, responses
from tests.providers.cases import ANTHROPIC, CHAT, LITELLM_ANTHROPIC, LITELLM_OPENAI, RESPONSES, Case, ask, question
from tests.providers.test_transcripts import good_calls, reasoning, redacted, refusals, reused

words = st.text(min_size=1, max_size=40).filter(str.strip)
texts = st.builds(TextPart, text=words)
thoughts = st.builds(ThinkingPart, text=words, signature=st.just("signed=="))
unsigned = st.builds(ThinkingPart, text=words)
broken = st.builds(ToolCall, id=st.uuids().map(str), name=st.just("weather"), arguments=st.just('{"city": "Kö'))

parts: dict[Case, st.SearchStrategy[Any]] = {
    ANTHROPIC: texts | thoughts | redacted | good_calls | broken,
    CHAT: texts | unsigned | refusals | good_calls | broken,
    RESPONSES: texts | reasoning | refusals | good_calls | broken,
    LITELLM_OPENAI: texts | unsigned | refusals | good_calls | broken,
    LITELLM_ANTHROPIC: texts | thoughts | redacted | good_calls,  # Claude's calls break off in a stream alone
}
usages = st.integers(10, 99).map(
    lambda count: Usage(input_tokens=count, output_tokens=count, cached_tokens=count // 2, reasoning_tokens=count // 3)
)
stops: st.SearchStrategy[StopReason] = st.sampled_from(["end", "max_tokens"])


def settled(response: ModelResponse) -> ModelResponse:
    """The response without the id of the call, which no two calls share."""
    return response.model_copy(update={"request_id": None})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_stream_ends_in_the_answer_that_is_given_whole(case: Case, data: st.DataObject) -> None:
    said = ModelResponse(
        message=AssistantMessage(parts=data.draw(st.lists(parts[case], min_size=1, max_size=4))),
        usage=data.draw(usages),
        stop_reason=data.draw(stops),
    )

    async def check() -> None:
        async with LLMServer(said) as server, reused(case, server) as model:
            whole, _ = await ask(model, question(user("?")), False)
            streamed, deltas = await ask(model, question(user("?")), True)
        assert settled(streamed) == settled(whole)
        spoken = [part.text for part in whole.message.parts if isinstance(part, TextPart | RefusalPart)]
        assert "".join(shown(deltas, "text")) == "".join(spoken)
        assert [parse_arguments(each) for each in shown(deltas, "tool_call")] == [
            each.arguments if isinstance(each.arguments, dict) else parse_arguments(each.arguments)
            for each in whole.message.tool_calls
        ]
        thought = [part.text for part in whole.message.parts if isinstance(part, ThinkingPart)]
        if case is not RESPONSES:  # there thoughts come as summaries, which are kept with their item
            assert "".join(shown(deltas, "thinking")) == "".join(thought)

    asyncio.run(check())


def shown(deltas: Iterable[Delta], kind: str) -> list[str]:
    """What grew, part by part."""
    grown: dict[int, str] = {}
    for delta in deltas:
        if delta.kind == kind:
            grown[delta.index] = grown.get(delta.index, "") + delta.text
    return list(grown.values())


WIRES: dict[Case, ModuleType] = {
    ANTHROPIC: anthropic,
    CHAT: chat,
    RESPONSES: responses,
    LITELLM_OPENAI: chat,
    LITELLM_ANTHROPIC: anthropic,
}
SAID = ModelResponse(
    message=AssistantMessage(
        parts=[
            TextPart(text="It is sunny in Berlin, and will stay so until Monday."),
            ToolCall(id="c1", name="weather", arguments={"city": "Köln", "days": [1, 2, 3]}),
        ]
    ),
    stop_reason="tool_calls",
)


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [Fault.cut, Fault.end, Fault.error_event], ids=["cut", "end", "error-event"])
async def test_a_stream_that_breaks_off_anywhere_is_no_answer(case: Case, make: Callable[[int], Fault]) -> None:
    wire = WIRES[case]
    events = len(list(wire.events(wire.body(SAID, question(user("?")), "m"))))
    assert events > 10
    answered: list[int] = []
    failed: list[ModelError] = []
    async with LLMServer(SAID) as server, reused(case, server) as model:
        whole, _ = await ask(model, question(user("?")), True)
        for after in range(events):
            server.fail(make(after))
            try:
                response, _ = await ask(model, question(user("?")), True)
            except ModelError as error:
                failed.append(error)
            else:
                answered.append(after)
                assert response.message == whole.message
                assert response.stop_reason == whole.stop_reason
    # What comes after the reason to stop may be missing: counts of tokens, and the word that the stream is over.
    assert all(after >= events - 3 for after in answered)
    assert all(error.retriable for error in failed)
