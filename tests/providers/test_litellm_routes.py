"""litellm's routes, over HTTP against answers of each provider's own shape: whole, streamed, with calls, and cut.

litellm ends every stream as if it were whole. Each route says in another place whether the provider ended it.
"""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from durably.core import ModelError, user
from durably.providers import Key
from durably.providers.litellm import LiteLLMModel
from tests.providers.cases import ask, question
from tests.providers.subjects import ENV

pytestmark = pytest.mark.asyncio

KEY = Key(env=ENV)
TEXT = ["It is ", "sunny ", "in Rome."]
ARGUMENTS = {"city": "Rome"}


@asynccontextmanager
async def answering(kind: str, body: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers everything with one body: its address, and the paths it was asked for."""
    paths: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        paths.append(head.split(" ")[1])
        lines = head.lower().split("\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
        await reader.readexactly(length)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        writer.write(body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", paths


# -- the shapes


def chat_body(calls: bool, end: str) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": None if calls else "".join(TEXT)}
    if calls:
        function = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else end}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    made = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps({**made, "service_tier": "default"}).encode()


def chat_events(calls: bool, end: str) -> list[bytes]:
    base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def event(delta: Mapping[str, Any], finish: str | None = None, **fields: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + json.dumps({**base, "choices": [choice], **fields}).encode() + b"\n\n"

    if calls:
        text = json.dumps(ARGUMENTS)
        head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        pieces: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [head]}]
        pieces += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in (text[:8], text[8:])]
    else:
        pieces = [{"role": "assistant", "content": piece} for piece in TEXT]
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    return [
        *(event(piece) for piece in pieces),
        event({}, "tool_calls" if calls else end, usage=usage),
        b"data: [DONE]\n\n",
    ]


def ollama_body(calls: bool, end: str) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": "" if calls else "".join(TEXT)}
    if calls:
        message["tool_calls"] = [{"function": {"name": "weather", "arguments": ARGUMENTS}}]
    counts = {"prompt_eval_count": 9, "eval_count": 5}
    return json.dumps({"model": "m", "message": message, "done": True, "done_reason": "stop", **counts}).encode()


def ollama_events(calls: bool, end: str) -> list[bytes]:
    def line(message: Mapping[str, Any], **fields: Any) -> bytes:
        made = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", **message}}
        return json.dumps({**made, "done": False, **fields}).encode() + b"\n"

    if calls:
        lines = [line({"content": "", "tool_calls": [{"function": {"name": "weather", "arguments": ARGUMENTS}}]})]
    else:
        lines = [line({"content": piece}) for piece in TEXT]
    return [*lines, line({"content": ""}, done=True, done_reason="stop", prompt_eval_count=9, eval_count=5)]


def converse_body(calls: bool, end: str) -> bytes:
    content: list[Any] = [{"text": "".join(TEXT)}]
    if calls:
        content = [{"toolUse": {"toolUseId": "call_1", "name": "weather", "input": ARGUMENTS}}]
    made = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use" if calls else "end_turn",
        "usage": {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14},
        "metrics": {"latencyMs": 1},
    }
    return json.dumps(made).encode()


def aws_event(kind: str, payload: Mapping[str, Any]) -> bytes:
    """One event in AWS's binary form: https://smithy.io/2.0/aws/amazon-eventstream.html."""
    fields = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in fields.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    message = prelude + headers + body
    return message + struct.pack("!I", zlib.crc32(message))


def converse_events(calls: bool, end: str) -> list[bytes]:
    made = [aws_event("messageStart", {"role": "assistant"})]
    if calls:
        begun = {"toolUse": {"toolUseId": "call_1", "name": "weather"}}
        made.append(aws_event("contentBlockStart", {"contentBlockIndex": 0, "start": begun}))
        text = json.dumps(ARGUMENTS)
        deltas: list[Any] = [{"toolUse": {"input": piece}} for piece in (text[:8], text[8:])]
    else:
        deltas = [{"text": piece} for piece in TEXT]
    made += [aws_event("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}) for delta in deltas]
    made.append(aws_event("contentBlockStop", {"contentBlockIndex": 0}))
    made.append(aws_event("messageStop", {"stopReason": "tool_use" if calls else "end_turn"}))
    usage = {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14}
    return [*made, aws_event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})]


@dataclass(frozen=True)
class Route:
    """One provider by litellm's name, and the shapes of its answers."""

    model: str
    body: Callable[[bool, str], bytes] = chat_body
    events: Callable[[bool, str], Sequence[bytes]] = chat_events
    stream_type: str = "text/event-stream"
    path: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    ends: int = 2
    """How many events at the end say that the answer is whole."""

    def __str__(self) -> str:
        return self.model.partition("/")[0]


AWS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret-0123456789", "AWS_REGION_NAME": "us-east-1"}
ROUTES = [
    Route("groq/llama-3.3-70b-versatile"),
    Route("openrouter/meta-llama/llama-3.3-70b-instruct"),
    Route("mistral/mistral-large-latest"),
    Route("deepseek/deepseek-chat"),
    Route("azure/gpt-4o", environment={"AZURE_API_VERSION": "2024-10-21"}),
    Route("snowflake/llama3.1-70b", environment={"SNOWFLAKE_ACCOUNT_ID": "ab12"}),
    Route("openai/gpt-4o"),
    Route("ollama_chat/llama3.1", ollama_body, ollama_events, "application/x-ndjson", ends=1),
    Route(
        "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0",
        converse_body,
        converse_events,
        "application/vnd.amazon.eventstream",
        environment=AWS,
    ),
]


@pytest.fixture(params=ROUTES, ids=lambda route: f"litellm-{route}")
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Route:
    found: Route = request.param
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.parametrize("calls", [False, True], ids=["text", "calls"])
async def test_an_answer_is_whole(route: Route, streamed: bool, calls: bool) -> None:
    body = b"".join(route.events(calls, "stop")) if streamed else route.body(calls, "stop")
    async with answering(route.stream_type if streamed else "application/json", body) as (url, paths):
        model = LiteLLMModel(route.model, key=KEY, base_url=f"{url}{route.path}")
        response, deltas = await ask(model, question(user("Weather?")), streamed)
    assert len(paths) == 1, "asked once"
    if calls:
        [made] = response.message.tool_calls
        assert (made.name, made.arguments, response.stop_reason) == ("weather", ARGUMENTS, "tool_calls")
    else:
        assert (response.message.text, response.stop_reason) == ("".join(TEXT), "end")
        assert not streamed or "".join(delta.text for delta in deltas) == response.message.text
    # litellm counts the tokens of Snowflake's streams itself, by an estimate.
    estimated = streamed and route.model.startswith("snowflake/")
    assert estimated or (response.usage.input_tokens, response.usage.output_tokens) == (9, 5)


@pytest.mark.parametrize("calls", [False, True], ids=["text", "calls"])
async def test_a_stream_that_ends_early_is_cut(route: Route, calls: bool) -> None:
    events = route.events(calls, "stop")
    async with answering(route.stream_type, b"".join(events[: len(events) - route.ends])) as (url, _):
        model = LiteLLMModel(route.model, key=KEY, base_url=f"{url}{route.path}")
        with pytest.raises(ModelError) as raised:
            await ask(model, question(user("Weather?")), True)
    assert raised.value.retriable, raised.value
