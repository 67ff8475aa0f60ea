"""What the real servers refuse, the server for tests refuses; and our models never send it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import create_model

from durably.core import assistant, user
from durably.core.messages import (
    AssistantMessage,
    Message,
    OpaquePart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
)
from durably.core.model import ModelRequest
from durably.providers import anthropic_messages, responses
from durably.providers.schemas import strict_schema
from durably.testing.models.wire import anthropic as anthropic_wire
from durably.testing.models.wire import chat as chat_wire
from durably.testing.models.wire import responses as responses_wire
from durably.testing.models.wire.strict import InvalidRequest
from durably.testing.models.wire.strict_schema import check_strict, check_strict_for_claude
from tests.providers.cases import WEATHER, question

HEADERS = {"x-api-key": "k", "anthropic-version": "v", "authorization": "Bearer k"}
ASKS = {"role": "user", "content": "hi"}
FIND = {"name": "find", "input_schema": {"type": "object"}}


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def use(**fields: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "c1", "name": "find", "input": {}, **fields}


RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1"}]}
SEARCHED = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
TEXT = {"type": "text", "text": "ok"}
THINKING = {"type": "enabled", "budget_tokens": 1024}
FROM_CODE = use(caller={"type": "code_execution_20250825", "tool_id": "s1"})
SERVER = {"type": "url", "name": "docs", "url": "https://x.test/mcp"}
TOOLSET = {"type": "mcp_toolset", "mcp_server_name": "docs"}

ANTHROPIC: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": ({"temperature": 1.1}, "temperature: Input should be less than or equal to 1"),
    "negative top_k": ({"top_k": -1}, "top_k: Input should be greater"),
    "temperature and top_p": ({"temperature": 0.5, "top_p": 0.5}, "cannot both be specified"),
    "effort": ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    "kind of thinking": ({"thinking": {"type": "deep"}}, "does not match any of the expected tags"),
    "small budget": ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "greater than or equal to 1024"),
    "budget over max_tokens": ({"thinking": THINKING, "max_tokens": 1024}, "must be greater than"),
    "temperature beside thinking": ({"thinking": THINKING, "temperature": 0.5}, "may only be set to 1"),
    "top_p beside thinking": ({"thinking": THINKING, "top_p": 0.5}, "0.95"),
    "top_k beside thinking": ({"thinking": {"type": "adaptive"}, "top_k": 5}, "must be unset"),
    "forced call beside thinking": (
        {"thinking": THINKING, "tools": [FIND], "tool_choice": {"type": "any"}},
        "forces tool use",
    ),
    "no thought in the turn": ({"thinking": THINKING, "messages": [ASKS, said(use()), RESULT]}, "Expected `thinking`"),
    "search without result": ({"messages": [ASKS, said(SEARCHED, TEXT), ASKS]}, "without a corresponding `web_search"),
    "result without search": ({"messages": [ASKS, said(FOUND, TEXT), ASKS]}, "must have a corresponding"),
    "no container": ({"messages": [ASKS, said(FROM_CODE), RESULT]}, "container_id is required"),
    "prefill": ({"messages": [ASKS, said(TEXT)]}, "must end with a user message"),
    "one tool name twice": ({"tools": [FIND, FIND]}, "unique"),
    "unknown tool of its own": ({"tools": [{"type": "time_travel_20990101", "name": "t"}]}, "expected tags"),
    "its own tool by another name": ({"tools": [{"type": "web_search_20250305", "name": "look"}]}, "'web_search'"),
    "all deferred": ({"tools": [{**FIND, "defer_loading": True}]}, "At least one tool"),
    "deferred and cached": (
        {"tools": [{**FIND, "defer_loading": True, "cache_control": {"type": "ephemeral"}}]},
        "cannot have cache_control",
    ),
    "strict tool": ({"tools": [{**FIND, "strict": True}]}, "additionalProperties"),
    "too many strict tools": (
        {
            "tools": [
                {"name": f"t{n}", "strict": True, "input_schema": {"type": "object", "additionalProperties": False}}
                for n in range(21)
            ]
        },
        "Too many strict tools",
    ),
    "toolset without the beta": ({"tools": [TOOLSET], "mcp_servers": [SERVER]}, "expected tags"),
    "server without a toolset": ({"mcp_servers": [SERVER]}, "exactly one MCP toolset"),
    "plain http": ({"mcp_servers": [{**SERVER, "url": "http://x.test"}]}, "https"),
}


@pytest.mark.parametrize(("fields", "sentence"), ANTHROPIC.values(), ids=ANTHROPIC.keys())
def test_anthropic(fields: dict[str, Any], sentence: str) -> None:
    body = {"model": "claude-opus-4-6", "max_tokens": 4096, "messages": [ASKS], **fields}
    with pytest.raises(InvalidRequest, match=sentence):
        anthropic_wire.parse(body, HEADERS)


def test_anthropic_takes_what_is_whole() -> None:
    """So that the refusals above are for the reason that they name."""
    good: list[dict[str, Any]] = [
        {"temperature": 1, "thinking": THINKING},
        {"messages": [ASKS, said(SEARCHED, FOUND, TEXT), ASKS]},
        {"messages": [ASKS, said(SEARCHED)]},
        {"messages": [ASKS, said(FROM_CODE), RESULT], "container": "c"},
        {"messages": [ASKS, said(TEXT)], "model": "claude-opus-4-5"},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}, {**FIND, "defer_loading": True}]},
        {"tools": [FIND], "output_config": {"effort": "max"}},
    ]
    for fields in good:
        anthropic_wire.parse({"model": "claude-opus-4-6", "max_tokens": 4096, "messages": [ASKS], **fields}, HEADERS)
    beta = {**HEADERS, "anthropic-beta": "mcp-client-2025-11-20"}
    body = {"model": "m", "max_tokens": 1, "messages": [ASKS], "mcp_servers": [SERVER], "tools": [TOOLSET]}
    anthropic_wire.parse(body, beta)


LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": ({"temperature": 2.5}, "decimal above maximum value"),
    "top_p": ({"top_p": -0.1}, "decimal below minimum value"),
    "type": ({"top_p": "x"}, "Invalid type"),
    "tier": ({"service_tier": "gold"}, "Supported values are"),
    "key": ({"prompt_cache_key": "k" * 65}, "maximum length 64, but got a string with length 65"),
    "tools": ({"tools": [{"type": "function"}] * 129}, "maximum length 128"),
    "metadata": ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
}
CHAT: dict[str, tuple[dict[str, Any], str]] = {
    **LIMITS,
    "effort": ({"reasoning_effort": "huge"}, "Supported values are"),
    "verbosity": ({"verbosity": "huge"}, "Supported values are"),
    "stops": ({"stop": list("abcde")}, "maximum length 4"),
    "max_tokens": ({"model": "gpt-5", "max_tokens": 10}, "Use 'max_completion_tokens'"),
    "temperature of a reasoner": ({"model": "o3", "temperature": 0.5}, "Only the default"),
    "strict tool": (
        {"tools": [{"type": "function", "function": {"name": "a", "strict": True, "parameters": {"type": "object"}}}]},
        "Invalid schema for function 'a'",
    ),
}
CUSTOM = {"type": "custom_tool_call", "call_id": "c1", "name": "write", "input": "x"}
RESPONSES: dict[str, tuple[dict[str, Any], str]] = {
    **LIMITS,
    "effort": ({"model": "gpt-5", "reasoning": {"effort": "huge"}}, "Supported values are"),
    "reasoning of none": ({"reasoning": {"effort": "low"}}, "not supported with this model"),
    "encrypted reasoning of none": ({"include": ["reasoning.encrypted_content"]}, "Encrypted content is not supported"),
    "temperature of a reasoner": ({"model": "gpt-5", "temperature": 1}, "'temperature' is not supported"),
    "few tokens": ({"max_output_tokens": 15}, "Expected a value >= 16"),
    "custom call": ({"input": [ASKS, CUSTOM, ASKS]}, "No tool output found for custom tool call c1"),
    "custom output": ({"input": [ASKS, {**CUSTOM, "type": "custom_tool_call_output"}]}, "No tool call found"),
    "output of another kind": (
        {"input": [ASKS, CUSTOM, {"type": "function_call_output", "call_id": "c1", "output": "x"}]},
        "No tool call found",
    ),
    "approval of nothing": (
        {"input": [ASKS, {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}]},
        "No approval request found",
    ),
    "reasoning by id": (
        {"store": False, "input": [ASKS, {"type": "reasoning", "id": "rs_1", "summary": []}, {**ASKS}]},
        "not persisted when `store` is set to false",
    ),
    "tool without its field": ({"tools": [{"type": "code_interpreter"}]}, "Missing required parameter"),
    "unknown tool": ({"tools": [{"type": "time_travel"}]}, "Invalid value"),
    "deferred without a search": (
        {
            "tools": [
                {
                    "type": "function",
                    "name": "a",
                    "parameters": {"type": "object"},
                    "strict": False,
                    "defer_loading": True,
                }
            ]
        },
        "tool_search",
    ),
    "MCP without a server": ({"tools": [{"type": "mcp", "server_label": "x"}]}, "server_url"),
}


@pytest.mark.parametrize(("fields", "sentence"), CHAT.values(), ids=CHAT.keys())
def test_chat(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        chat_wire.parse({"model": "gpt-4o", "messages": [ASKS], **fields}, HEADERS)
    chat_wire.parse({"model": "gpt-4o", "messages": [ASKS]}, HEADERS)


@pytest.mark.parametrize(("fields", "sentence"), RESPONSES.values(), ids=RESPONSES.keys())
def test_responses(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        responses_wire.parse({"model": "gpt-4o", "input": [ASKS], **fields}, HEADERS)
    responses_wire.parse({"model": "gpt-4o", "input": [ASKS]}, HEADERS)


CLOSED = {"type": "object", "additionalProperties": False}


def holding(part: Any) -> dict[str, Any]:
    return {**CLOSED, "properties": {"a": part}, "required": ["a"]}


def nested(levels: int) -> dict[str, Any]:
    return holding(nested(levels - 1)) if levels else {**CLOSED}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "integer", "minimum": 1},
        {"type": "string", "default": "x"},
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        {"type": "array"},
        {"oneOf": [{"type": "string"}]},
        {"allOf": [{"type": "string"}]},
        {"$ref": "#/$defs/A", "description": "x"},
        {"description": "anything"},
        {"type": "object", "properties": {}},
        {**CLOSED, "properties": {"b": {"type": "string"}}},
        nested(11),
        {"type": "string", "enum": [str(n) for n in range(1001)]},
    ],
)
def test_strict_schemas(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        check_strict(holding(part), "schema")


def test_a_property_may_be_called_like_a_keyword() -> None:
    names = {"default": {"type": "string"}, "minimum": {"type": "integer"}, "not": {"type": "string"}}
    check_strict({**CLOSED, "properties": names, "required": [*names]}, "schema")


# -- our models


def test_a_schema_that_is_too_large_is_asked_for_in_words() -> None:
    wide = create_model("Wide", **{f"f{n}": (int | None, None) for n in range(17)})  # type: ignore[call-overload]
    made = strict_schema(wide.model_json_schema())
    check_strict(made, "schema")
    with pytest.raises(InvalidRequest, match="union"):
        check_strict_for_claude(made, "schema")
    assert strict_schema(wide.model_json_schema(), unions=16) is None
    many = {"type": "object", "properties": {"e": {"enum": [str(n) for n in range(1001)]}}}
    assert strict_schema(many) is None


def claude(*messages: Message, **options: Any) -> dict[str, Any]:
    body = anthropic_messages.request_body(
        question(*messages, options=options), model="claude-opus-4-6", max_tokens=9999
    )
    anthropic_wire.parse(body, HEADERS)
    return body


CALL = ToolCall(id="c1", name="weather", arguments={"city": "Rome"})
SUN = ToolResultMessage(call_id="c1", name="weather", content="sun")


def test_a_turn_that_another_model_began_goes_on_without_thinking() -> None:
    thought = ThinkingPart(text="hm", signature="s")
    foreign = AssistantMessage(parts=[CALL], provider="openai")
    own = AssistantMessage(parts=[thought, CALL], provider="anthropic")
    assert "thinking" not in claude(user("?"), foreign, SUN, thinking=THINKING)
    assert "thinking" in claude(user("?"), own, SUN, thinking=THINKING)
    assert "thinking" in claude(user("?"), foreign, SUN, assistant("sun"), user("and?"), thinking=THINKING)


def test_a_search_that_was_cut_off_is_forgotten() -> None:
    search, found = OpaquePart(data=SEARCHED), OpaquePart(data=FOUND)
    cut = AssistantMessage(parts=[TextPart(text="let me see"), search], provider="anthropic")
    assert claude(user("?"), cut, user("so?"))["messages"][1]["content"] == [{"type": "text", "text": "let me see"}]
    assert claude(user("?"), cut)["messages"][1]["content"][1] == SEARCHED, "there it goes on"
    after = AssistantMessage(parts=[found, TextPart(text="sun")], provider="anthropic")
    assert len(claude(user("?"), cut, after, user("so?"))["messages"]) == 4
    lost = claude(user("?"), after, user("so?"))["messages"][1]["content"]
    assert lost == [{"type": "text", "text": "sun"}]
    alone = AssistantMessage(parts=[search], provider="anthropic")
    assert claude(user("?"), alone, user("so?"))["messages"][1]["content"] == [{"type": "text", "text": "(empty)"}]


def test_a_thought_that_is_not_encrypted_stays_where_it_is_stored() -> None:
    thought = OpaquePart(data={"type": "reasoning", "id": "rs_1", "summary": []})
    before = AssistantMessage(parts=[thought, TextPart(text="sun")], provider="openai")

    def body(**options: Any) -> dict[str, Any]:
        asked = ModelRequest(system="", messages=[user("?"), before, user("so?")], tools=[WEATHER], options=options)
        made = responses.request_body(asked, model="gpt-5", reasons=True)
        responses_wire.parse(made, HEADERS)
        return made

    assert [item["type"] for item in body()["input"]] == ["message", "message", "message"]
    assert body(store=True)["input"][1] == thought.data
