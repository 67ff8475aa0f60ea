"""Every provider x streamed and whole x what a model can say and be told, through the real SDKs over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from durably.core import ModelError, assistant, user
from durably.core.messages import (
    AssistantMessage,
    AssistantPart,
    FilePart,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelResponse, Usage
from durably.testing import call
from durably.testing.models.llm_server import LLMServer
from durably.testing.models.scripted import Reply
from tests.providers.cases import (
    ANTHROPIC,
    CHAT,
    LITELLM_ANTHROPIC,
    LITELLM_OPENAI,
    RESPONSES,
    Case,
    ask,
    question,
)

PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="

pytestmark = pytest.mark.asyncio


def reply(*parts: AssistantPart, **fields: Any) -> ModelResponse:
    return ModelResponse(message=AssistantMessage(parts=list(parts)), **fields)


async def talk(case: Case, streamed: bool, answer: Reply, request: Any = None) -> tuple[ModelResponse, LLMServer]:
    """Ask one question of a server with one answer; streamed, it must come to the same as whole."""
    request = request or question(user("How is the weather?"))
    async with LLMServer(lambda asked: answer) as server:
        model = case.model(server)
        response, deltas = await ask(model, request, streamed)
        if streamed:
            whole = await model.complete(request)
            assert response.message == whole.message
            assert response.stop_reason == whole.stop_reason
            assert response.model == whole.model
            shown = "".join(delta.text for delta in deltas if delta.kind == "text")
            if response.stop_reason != "refusal":
                assert shown == response.message.text
        assert response.message.provider == case.origin
        assert response.request_id
        return response, server


async def test_text(case: Case, streamed: bool) -> None:
    usage = Usage(input_tokens=50, output_tokens=20)
    response, server = await talk(case, streamed, reply(TextPart(text="It is sunny in Berlin, — 24 °C."), usage=usage))
    assert response.message.text == "It is sunny in Berlin, — 24 °C."
    assert response.stop_reason == "end"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (50, 20)
    asked = server.requests[0]
    assert asked.system == "Be brief."
    assert [spec.name for spec in asked.tools] == ["weather"]


async def test_one_call(case: Case, streamed: bool) -> None:
    said = reply(TextPart(text="Let me look."), ToolCall(id="c1", name="weather", arguments={"city": "Köln"}))
    response, _ = await talk(case, streamed, said.model_copy(update={"stop_reason": "tool_calls"}))
    assert response.stop_reason == "tool_calls"
    assert response.message.text == "Let me look."
    [made] = response.message.tool_calls
    assert (made.id, made.name, made.arguments) == ("c1", "weather", {"city": "Köln"})


async def test_parallel_calls(case: Case, streamed: bool) -> None:
    cities = ["Berlin", "Paris", "Rome"]
    response, _ = await talk(case, streamed, [call("weather", city=city) for city in cities])
    assert [made.arguments for made in response.message.tool_calls] == [{"city": city} for city in cities]
    assert len({made.id for made in response.message.tool_calls}) == 3


async def test_error_result(case: Case, streamed: bool) -> None:
    asked = AssistantMessage(parts=[ToolCall(id="c1", name="weather", arguments={"city": "X"})], provider=case.origin)
    failed = ToolResultMessage(call_id="c1", name="weather", content="no such city", is_error=True)
    response, server = await talk(case, streamed, "Sorry.", question(user("Weather in X?"), asked, failed))
    assert response.message.text == "Sorry."
    result = server.requests[0].messages[2]
    assert isinstance(result, ToolResultMessage)
    if case is ANTHROPIC:
        assert (result.content, result.is_error) == ("no such city", True)
    else:
        assert "Error: no such city" in str(result.content)


async def test_image_and_file(case: Case, streamed: bool) -> None:
    image, pdf = (
        FilePart(media_type="image/png", data=PNG),
        FilePart(media_type="application/pdf", data=PDF, name="a.pdf"),
    )
    asked = UserMessage(content=[TextPart(text="What is this?"), image, pdf])
    _, server = await talk(case, streamed, "A picture.", question(asked))
    [heard] = server.requests[0].messages
    files = [part for part in heard.content if isinstance(part, FilePart)]  # type: ignore[union-attr]
    assert [(file.media_type, file.data) for file in files] == [("image/png", PNG), ("application/pdf", PDF)]


async def test_image_in_a_result(case: Case, streamed: bool) -> None:
    asked = AssistantMessage(parts=[ToolCall(id="c1", name="weather", arguments={"city": "X"})], provider=case.origin)
    image = FilePart(media_type="image/png", data=PNG)
    shown = [TextPart(text="The map:"), image]
    result = ToolResultMessage(call_id="c1", name="weather", content=shown, metadata={"for": "programs alone"})
    _, server = await talk(case, streamed, "Nice.", question(user("Weather?"), asked, result))
    heard = server.requests[0].messages[2:]
    found = [part for message in heard for part in message.content if isinstance(part, FilePart)]  # type: ignore[union-attr]
    assert [file.data for file in found] == [PNG]
    assert b"programs alone" not in b"".join(each.body for each in server.received)
    in_the_result = case in (ANTHROPIC, RESPONSES)
    assert any(isinstance(message, UserMessage) for message in heard) is not in_the_result


@pytest.mark.parametrize("case", [ANTHROPIC, LITELLM_ANTHROPIC], ids=lambda case: case.id)
async def test_signed_thinking_goes_back(case: Case, streamed: bool) -> None:
    thought = ThinkingPart(text="The user wants the weather, so", signature="signed==")
    hidden = OpaquePart(data={"type": "redacted_thinking", "data": "abc"})
    response, _ = await talk(case, streamed, reply(thought, hidden, TextPart(text="Sunny.")))
    assert response.message.parts == [thought, hidden, TextPart(text="Sunny.")]
    _, server = await talk(case, streamed, "ok", question(user("?"), response.message, user("Sure?")))
    heard = server.requests[0].messages[1]
    assert isinstance(heard, AssistantMessage)
    assert heard.parts == response.message.parts


async def test_reasoning_items_go_back(streamed: bool) -> None:
    item = OpaquePart(
        data={
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Thinking."}],
            "encrypted_content": "opaque==",
        }
    )
    asked = ToolCall(id="c1", name="weather", arguments={"city": "X"}, native={"id": "fc_1"})
    response, _ = await talk(RESPONSES, streamed, reply(item, asked, stop_reason="tool_calls"))
    assert response.message.parts == [item, asked]
    result = ToolResultMessage(call_id="c1", name="weather", content="sunny")
    _, server = await talk(RESPONSES, streamed, "ok", question(user("?"), response.message, result))
    assert server.requests[0].messages[1] == AssistantMessage(parts=[item, asked])


@pytest.mark.parametrize("case", [CHAT, LITELLM_OPENAI], ids=lambda case: case.id)
async def test_unsigned_thinking_is_shown_and_does_not_go_back_with_another_question(
    case: Case, streamed: bool
) -> None:
    response, _ = await talk(case, streamed, reply(ThinkingPart(text="Let me think."), TextPart(text="Sunny.")))
    thought, said = response.message.parts
    assert isinstance(thought, ThinkingPart)
    assert (thought.text, said) == ("Let me think.", TextPart(text="Sunny."))
    _, server = await talk(case, streamed, "ok", question(user("?"), response.message, user("Sure?")))
    assert server.requests[0].messages[1] == assistant("Sunny.")


async def test_refusal(case: Case, streamed: bool) -> None:
    refusal = RefusalPart(text="I cannot help with that, whatever you say.")
    response, _ = await talk(case, streamed, reply(refusal, stop_reason="refusal"))
    assert response.stop_reason == "refusal"
    assert response.message.parts == [refusal]


class Forecast(BaseModel):
    city: str
    degrees: int = 20


async def test_structured_output(case: Case, streamed: bool) -> None:
    schema = Forecast.model_json_schema()
    answer = json.dumps({"city": "Berlin", "degrees": 24})
    request = question(user("Weather?"), output_schema=schema, tools=[])
    response, server = await talk(case, streamed, answer, request)
    assert Forecast.model_validate_json(response.message.text) == Forecast(city="Berlin", degrees=24)
    wanted = server.requests[0].output_schema
    assert wanted is not None
    assert set(wanted["properties"]) == {"city", "degrees"}


async def test_output_that_has_no_strict_schema_is_asked_for_in_words(case: Case, streamed: bool) -> None:
    request = question(user("Weather?"), output_schema={"type": "array", "items": {"type": "integer"}})
    _, server = await talk(case, streamed, "[1]", request)
    assert server.requests[0].output_schema is None
    assert '"array"' in server.requests[0].system


@pytest.mark.parametrize("choice", ["auto", "required", "none", "weather"])
async def test_tool_choice(case: Case, choice: str) -> None:
    _, server = await talk(case, False, "ok", question(user("Weather?"), options={"tool_choice": choice}))
    heard = server.requests[0].options.get("tool_choice")
    if case in (ANTHROPIC, LITELLM_ANTHROPIC):
        named = {"type": "tool", "name": "weather"} if choice == "weather" else None
        kinds: dict[str, Any] = {"auto": {"type": "auto"}, "required": {"type": "any"}, "none": {"type": "none"}}
        assert heard == (named or kinds[choice])
    elif choice != "weather":
        assert heard == choice
    else:
        assert "weather" in json.dumps(heard)


async def test_tool_choice_is_left_out_without_tools(case: Case) -> None:
    _, server = await talk(case, False, "ok", question(user("?"), tools=[], options={"tool_choice": "auto"}))
    assert "tool_choice" not in server.requests[0].options


async def test_options_are_passed_on(case: Case, streamed: bool) -> None:
    # A reasoning model of OpenAI's takes no temperature in the newer format.
    name, value = ("reasoning", {"effort": "low"}) if case is RESPONSES else ("temperature", 1.0)
    _, server = await talk(case, streamed, "ok", question(user("?"), options={name: value}))
    assert server.requests[0].options[name] == value


async def test_cut_answer(case: Case, streamed: bool) -> None:
    response, _ = await talk(case, streamed, reply(TextPart(text="It is sun"), stop_reason="max_tokens"))
    assert response.stop_reason == "max_tokens"
    assert response.message.text == "It is sun"


async def test_cut_call_is_not_guessed(case: Case, streamed: bool) -> None:
    if case is RESPONSES:
        return  # its cut calls are never valid JSON: the next test
    cut = reply(ToolCall(id="c1", name="weather", arguments={}), stop_reason="max_tokens")
    response, _ = await talk(case, streamed, cut)
    assert response.message.tool_calls[0].arguments == "{}"


FOUND = OpaquePart(data={"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []})
SEARCH = OpaquePart(data={"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}})
PAUSING = pytest.mark.parametrize("case", [ANTHROPIC, LITELLM_ANTHROPIC], ids=lambda case: case.id)


@PAUSING
async def test_a_pause_goes_on_where_it_stopped(case: Case, streamed: bool) -> None:
    response, _ = await talk(case, streamed, reply(TextPart(text="Let me think."), stop_reason="pause"))
    assert response.stop_reason == "pause"
    _, server = await talk(case, streamed, "done", question(user("?"), response.message))
    assert server.requests[0].messages[1] == assistant("Let me think.")


async def test_a_pause_in_a_tool_of_the_providers_own(streamed: bool) -> None:
    response, _ = await talk(ANTHROPIC, streamed, reply(SEARCH, stop_reason="pause"))
    assert response.stop_reason == "pause"
    assert response.message.parts == [SEARCH]
    _, server = await talk(ANTHROPIC, streamed, "done", question(user("?"), response.message))
    assert server.requests[0].messages[1] == AssistantMessage(parts=[SEARCH])


async def test_litellm_says_that_it_cannot_go_on_with_such_a_pause(streamed: bool) -> None:
    async with LLMServer(reply(TextPart(text="Let me see."), SEARCH, stop_reason="pause")) as server:
        with pytest.raises(ModelError, match=r"use durably\.providers\.anthropic") as raised:
            await ask(LITELLM_ANTHROPIC.model(server), question(user("?")), streamed)
    assert not raised.value.retriable


CITED = {
    ANTHROPIC: TextPart(text="Sunny.", native={"citations": [{"type": "char_location", "cited_text": "sun"}]}),
    RESPONSES: TextPart(
        text="Sunny.", native={"id": "msg_1", "annotations": [{"type": "url_citation", "url": "https://x.test"}]}
    ),
    CHAT: TextPart(
        text="Sunny.",
        native={"annotations": [{"type": "url_citation", "url_citation": {"url": "https://x.test", "title": "t"}}]},
    ),
}


@pytest.mark.parametrize("case", CITED, ids=lambda case: case.id)
async def test_citations_are_kept_and_go_back_where_they_may(case: Case, streamed: bool) -> None:
    cited = CITED[case]
    response, _ = await talk(case, streamed, reply(cited))
    [kept] = response.message.parts
    assert isinstance(kept, TextPart)
    for name, value in (cited.native or {}).items():
        assert _without_defaults((kept.native or {})[name]) == value
    _, server = await talk(case, streamed, "ok", question(user("?"), response.message, user("Sure?")))
    heard = server.requests[0].messages[1]
    assert heard == (assistant("Sunny.") if case is CHAT else AssistantMessage(parts=[kept]))


def _without_defaults(value: Any) -> Any:
    """An SDK may add fields that are null."""
    if isinstance(value, list):
        return [_without_defaults(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_defaults(each) for key, each in value.items() if each is not None}
    return value


OWN_TOOLS = {
    ANTHROPIC: SEARCH,
    RESPONSES: OpaquePart(
        data={
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "sun", "queries": ["sun"]},
        }
    ),
}


@pytest.mark.parametrize("case", OWN_TOOLS, ids=lambda case: case.id)
async def test_what_the_providers_own_tools_did_goes_back(case: Case, streamed: bool) -> None:
    did = [OWN_TOOLS[case], *([FOUND] if case is ANTHROPIC else [])]
    response, _ = await talk(case, streamed, reply(*did, TextPart(text="Sunny.")))
    assert response.message.parts[: len(did)] == did
    _, server = await talk(case, streamed, "ok", question(user("?"), response.message, user("Sure?")))
    heard = server.requests[0].messages[1]
    assert isinstance(heard, AssistantMessage)
    assert heard.parts[: len(did)] == did


async def test_usage(case: Case, streamed: bool) -> None:
    usage = Usage(input_tokens=100, output_tokens=40, cached_tokens=30, reasoning_tokens=15)
    response, _ = await talk(case, streamed, reply(TextPart(text="ok"), usage=usage))
    assert response.usage == usage


async def test_cost(case: Case, streamed: bool) -> None:
    usage = Usage(input_tokens=1000, output_tokens=100)
    response, _ = await talk(case, streamed, reply(TextPart(text="ok"), usage=usage))
    if case in (CHAT, RESPONSES):
        assert response.cost is None  # nobody knows the prices of this address
    else:
        assert response.cost is not None
        assert 0 < response.cost < 1


async def test_malformed_arguments_stay_text(case: Case, streamed: bool) -> None:
    broken = reply(ToolCall(id="c1", name="weather", arguments='{"city": "Ber'), stop_reason="tool_calls")
    async with LLMServer(broken) as server:
        response, _ = await ask(case.model(server), question(user("?")), streamed)
    [made] = response.message.tool_calls
    assert isinstance(made.arguments, str)


async def test_missing_and_repeated_ids_are_made(case: Case, streamed: bool) -> None:
    calls = [ToolCall(id=each, name="weather", arguments={"city": "X"}) for each in ("", "same", "same")]
    async with LLMServer(reply(*calls, stop_reason="tool_calls")) as server:
        model = case.model(server)
        first, _ = await ask(model, question(user("?")), streamed)
        again, _ = await ask(model, question(user("?")), streamed)
    ids = [made.id for made in first.message.tool_calls]
    assert all(ids)
    assert len(set(ids)) == 3
    if not case.id.startswith("litellm"):  # litellm makes up random ids where they are missing
        assert ids == [made.id for made in again.message.tool_calls]


async def test_empty_answer(case: Case, streamed: bool) -> None:
    async with LLMServer(reply()) as server:
        response, _ = await ask(case.model(server), question(user("?")), streamed)
    assert response.message.text == ""
    _, server = await talk(case, streamed, "ok", question(user("?"), response.message, user("Well?")))
    assert len(server.requests[0].messages) == 3


async def test_the_key_goes_in_the_header_only(case: Case, key: str) -> None:
    _, server = await talk(case, False, "ok")
    sent = server.received[0]
    assert any(key in value for value in sent.headers.values())
    assert key.encode() not in sent.body
