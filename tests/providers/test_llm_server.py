"""The server refuses what the real ones refuse; otherwise the suites beside this one would prove nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from durably.core import ModelError
from durably.core.model import ModelRequest
from durably.testing import Fault, LLMServer, call
from durably.testing.models.wire import anthropic, chat, responses
from durably.testing.models.wire.strict import InvalidRequest

pytestmark = pytest.mark.asyncio

HEADERS = {"x-api-key": "k", "anthropic-version": "v", "authorization": "Bearer k"}
USER = {"role": "user", "content": "hi"}


def use(call_id: str = "c1", **fields: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": call_id, "name": "find", "input": {}, **fields}
    return {"role": "assistant", "content": [block]}


def used(*call_ids: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": each} for each in call_ids]}


def asks(*call_ids: str) -> dict[str, Any]:
    calls = [{"id": each, "type": "function", "function": {"name": "find", "arguments": "{}"}} for each in call_ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def told(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "x"}


ANTHROPIC: dict[str, list[Any]] = {
    "no message": [],
    "assistant first": [{"role": "assistant", "content": "hi"}],
    "unknown role": [USER, {"role": "tool", "content": "x"}],
    "empty text": [{"role": "user", "content": " "}],
    "call without result": [USER, use(), USER],
    "call at the end": [USER, use()],
    "result without call": [USER, used("c1")],
    "result of another call": [USER, use(), used("c2")],
    "one id twice": [USER, use(), used("c1"), use(), used("c1")],
    "bad id": [USER, use("a|b"), used("a|b")],
    "arguments as text": [USER, use(input="{}"), used("c1")],
    "thinking last": [
        USER,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "s"}]},
    ],
    "unsigned thinking": [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}],
    "unknown field": [{**USER, "name": "x"}],
    "not base64": [
        {
            "role": "user",
            "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}],
        }
    ],
}
CHAT: dict[str, list[Any]] = {
    "no message": [],
    "unknown role": [{"role": "person", "content": "x"}],
    "call without result": [USER, asks("c1"), USER],
    "one result missing": [USER, asks("c1", "c2"), told("c1")],
    "result without call": [USER, told("c1")],
    "one id twice": [USER, asks("c1", "c1"), told("c1")],
    "long id": [USER, asks("x" * 41), told("x" * 41)],
    "nothing said": [USER, {"role": "assistant", "content": None}],
    "unknown field": [USER, {"role": "assistant", "content": "x", "thoughts": "y"}],
    "image in a result": [
        USER,
        asks("c1"),
        {**told("c1"), "content": [{"type": "image_url", "image_url": {"url": "https://x.test"}}]},
    ],
}
ASKED = {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"}
TOLD = {"type": "function_call_output", "call_id": "c1", "output": "x"}
REASONED = {"type": "reasoning", "id": "rs_1", "summary": []}
RESPONSES: dict[str, list[Any]] = {
    "no item": [],
    "call without output": [USER, ASKED, USER],
    "output without call": [USER, TOLD],
    "one id twice": [USER, ASKED, TOLD, ASKED, TOLD],
    "reasoning alone": [USER, REASONED, USER],
    "unknown item": [USER, {"type": "thinking"}],
    "arguments as an object": [USER, {**ASKED, "arguments": {}}, TOLD],
    "foreign content": [USER, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}],
}


@pytest.mark.parametrize("messages", ANTHROPIC.values(), ids=ANTHROPIC.keys())
async def test_anthropic_refuses(messages: list[Any]) -> None:
    with pytest.raises(InvalidRequest):
        anthropic.parse({"model": "m", "max_tokens": 1, "messages": messages}, HEADERS)


@pytest.mark.parametrize("messages", CHAT.values(), ids=CHAT.keys())
async def test_chat_refuses(messages: list[Any]) -> None:
    with pytest.raises(InvalidRequest):
        chat.parse({"model": "m", "messages": messages}, HEADERS)


@pytest.mark.parametrize("items", RESPONSES.values(), ids=RESPONSES.keys())
async def test_responses_refuses(items: list[Any]) -> None:
    with pytest.raises(InvalidRequest):
        responses.parse({"model": "m", "input": items}, HEADERS)


TOOL = {"name": "a b", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"temprature": 1},
        {"tools": [TOOL]},
        {"tools": [{"name": "a", "input_schema": {"type": "string"}}]},
        {"tool_choice": {"type": "auto"}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}},
    ],
)
async def test_bad_parameters_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        anthropic.parse({"model": "m", "max_tokens": 1, "messages": [USER], **fields}, HEADERS)


@pytest.mark.parametrize("missing", ["x-api-key", "anthropic-version"])
async def test_headers_are_required(missing: str) -> None:
    headers = {"x-api-key": "k", "anthropic-version": "v"}
    del headers[missing]
    with pytest.raises(InvalidRequest):
        anthropic.parse({"model": "m", "max_tokens": 1, "messages": [USER]}, headers)
    with pytest.raises(InvalidRequest):
        chat.parse({"model": "m", "messages": [USER]}, {})


async def test_it_speaks_http() -> None:
    async with LLMServer("hello") as server, httpx.AsyncClient(base_url=server.url, headers=HEADERS) as client:
        assert (await client.post("/v2/nothing", json={})).status_code == 404
        assert (await client.get("/v1/messages")).status_code == 404
        assert (await client.post("/v1/messages", content=b"[]")).status_code == 400

        async def chunks():  # type: ignore[no-untyped-def]
            yield b'{"model": "m", "max_tokens": 1, '
            yield b'"messages": [{"role": "user", "content": "hi"}]}'

        reply = await client.post("/v1/messages", content=chunks())  # type: ignore[no-untyped-call]
        assert reply.json()["content"] == [{"type": "text", "text": "hello"}]
        assert len(server.received) == 4


async def test_what_was_never_asked_for_is_told() -> None:
    server = LLMServer("hello", faults=[Fault.cut()])
    with pytest.raises(AssertionError, match="never asked for"):
        server.assert_used_up()
    async with server, httpx.AsyncClient(base_url=server.url, headers=HEADERS) as client:
        server.fail(None, Fault.cut())
        await client.post("/v1/messages", json={"model": "m", "max_tokens": 1, "messages": [USER]})
    with pytest.raises(AssertionError, match="never happened"):
        server.assert_used_up()
    with pytest.raises(RuntimeError, match="async with"):
        _ = server.url


async def test_a_script_may_raise_and_compute() -> None:
    def answer(request: ModelRequest) -> Any:
        if not request.tools:
            raise ModelError("overloaded", provider="p", model="m", status=529)
        return call("find")

    async with LLMServer(answer) as server, httpx.AsyncClient(base_url=server.url, headers=HEADERS) as client:
        reply = await client.post("/v1/messages", json={"model": "m", "max_tokens": 1, "messages": [USER]})
        assert reply.status_code == 529
        assert reply.json()["error"]["type"] == "overloaded_error"
