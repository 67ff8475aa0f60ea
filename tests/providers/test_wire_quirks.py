"""What real servers answer besides what their documentation shows first."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from durably.core import ModelError, assistant, user
from durably.core.messages import (
    AssistantMessage,
    FilePart,
    Message,
    OpaquePart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest, ModelResponse, Usage
from durably.providers import Key, anthropic_messages, chat, responses
from durably.providers.answers import UnanswerableError
from durably.providers.anthropic import AnthropicModel
from durably.providers.anthropic_stream import StreamedAnswer as StreamedClaude
from durably.providers.chat_stream import StreamedAnswer as StreamedChat
from durably.providers.clients import KEPT, Clients
from durably.providers.dialect import unreadable
from durably.providers.failures import Failures
from durably.providers.litellm import LiteLLMModel
from durably.providers.openai import OpenAIModel, _is_reasoning
from durably.providers.schemas import strict_schema
from durably.testing.models.llm_server import LLMServer
from durably.testing.models.wire.strict_schema import check_strict
from tests.providers.cases import ANTHROPIC, CHAT, RESPONSES, WEATHER, Case, ask, close_litellm, question
from tests.providers.subjects import ENV

KEY = Key(env=ENV)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, "sk-test-0123456789")


@asynccontextmanager
async def serving(*bodies: str | Mapping[str, Any]) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers one body after another, the last one again and again: its address, and what it was sent."""
    heard: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            lines = head.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            heard.append(json.loads(await reader.readexactly(length) or b"{}"))
            body = bodies[min(len(heard), len(bodies)) - 1]
            kind = "text/event-stream" if isinstance(body, str) else "application/json"
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n"
                "connection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
            break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


def chat_answer(message: Mapping[str, Any], finish: str = "stop", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **fields}


def read_chat(message: Mapping[str, Any], finish: str = "stop", server: str | None = None) -> ModelResponse:
    return chat.answer(chat_answer(message, finish), question(user("?")), origin="openai-chat", server=server)


def body_of(name: str, request: ModelRequest) -> dict[str, Any]:
    if name == "anthropic":
        return anthropic_messages.request_body(request, model="m", max_tokens=10)
    if name == "chat":
        return chat.request_body(request, model="m", dialect=chat.DIALECT, native_output=True)
    return responses.request_body(request, model="m", reasons=True)


# -- requests


@pytest.mark.parametrize("name", ["anthropic", "chat", "responses"])
def test_tools_among_the_options_are_added_to_the_agents(name: str) -> None:
    search = {"type": "web_search"}
    made = body_of(name, ModelRequest(system="", messages=[user("?")], tools=[WEATHER], options={"tools": [search]}))
    assert len(made["tools"]) == 2
    assert made["tools"][1].items() >= search.items()
    alone = body_of(name, ModelRequest(system="", messages=[user("?")], options={"tools": [search]}))
    assert [each["type"] for each in alone["tools"]] == ["web_search"]


def test_include_is_added_to_the_encrypted_reasoning() -> None:
    asked = ModelRequest(system="", messages=[user("?")], options={"include": ["message.output_text.logprobs"]})
    assert body_of("responses", asked)["include"] == ["reasoning.encrypted_content", "message.output_text.logprobs"]


def test_the_prompt_cache_is_told_where_the_conversation_goes_on() -> None:
    said: list[Message] = [
        user("a"),
        assistant("b"),
        UserMessage(content=[TextPart(text="c")]),
        assistant("d"),
        user("e"),
    ]
    made = body_of("anthropic", ModelRequest(system="s", messages=said, tools=[WEATHER]))
    mark = {"cache_control": {"type": "ephemeral"}}
    assert made["tools"][-1].items() >= mark.items()
    assert made["system"] == [{"type": "text", "text": "s", **mark}]
    marked = [
        place
        for place, message in enumerate(made["messages"])
        if isinstance(message["content"], list) and "cache_control" in message["content"][-1]
    ]
    assert marked == [2, 4]
    own = {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}
    kept = body_of("anthropic", ModelRequest(system="s", messages=said, tools=[WEATHER], options=own))
    assert json.dumps(kept).count("cache_control") == 1, "breakpoints of the caller's own are left alone"
    off = anthropic_messages.request_body(question(user("?")), model="m", max_tokens=1, cache=False)
    assert "cache_control" not in json.dumps(off)


def test_what_was_sent_is_the_beginning_of_what_is_sent_next() -> None:
    """Breakpoints move, and nothing else before the tail changes: so the cache fits."""

    def unmarked(body: Any) -> Any:
        return json.loads(json.dumps(body).replace(', "cache_control": {"type": "ephemeral"}', ""))

    def blocks(content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    said: list[Message] = [user("begin")]
    before: list[Any] = []
    for turn in range(30):
        made = unmarked(body_of("anthropic", ModelRequest(system="s", messages=said, tools=[WEATHER])))
        now = [made["tools"], made["system"], *((each["role"], blocks(each["content"])) for each in made["messages"])]
        assert now[: len(before)] == before
        before = now
        asked = ToolCall(id=f"c{turn}", name="weather", arguments={"city": "Rome"})
        said += [AssistantMessage(parts=[asked], provider="anthropic")]
        said += [ToolResultMessage(call_id=f"c{turn}", name="weather", content="sun")]


@pytest.mark.asyncio
async def test_openai_is_told_which_requests_are_one_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(model: OpenAIModel, *messages: Message) -> Any:
        return model._body(ModelRequest(system="s", messages=messages)).get("prompt_cache_key")

    model = OpenAIModel("gpt-5", key=KEY)
    first = sent(model, user("a"))
    assert first
    assert sent(model, user("a"), assistant("b"), user("c")) == first
    assert sent(model, user("b")) != first
    assert sent(OpenAIModel("gpt-5", key=KEY, cache=False), user("a")) is None
    assert sent(OpenAIModel("m", key=KEY, base_url="http://127.0.0.1:1/v1"), user("a")) is None


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        *[
            (name, True)
            for name in ("o1", "o3-mini", "o4-mini", "gpt-5", "gpt-5.1-codex", "ft:o4-mini-2025-04-16:org::id")
        ],
        *[(name, False) for name in ("gpt-4o", "gpt-5-chat-latest", "ft:gpt-4o:org::id", "ollama", "o1ive")],
    ],
)
def test_a_reasoning_model_is_known_by_its_base(name: str, reasons: bool) -> None:
    assert _is_reasoning(name) is reasons


class Tuples(BaseModel):
    pair: tuple[int, str]


class Anything(BaseModel):
    value: Any


class Tree(BaseModel):
    children: list[Leaf] = []


class Leaf(BaseModel):
    tree: Tree | None = None


class Holder(BaseModel):
    tree: Tree


def test_schemas_that_strict_mode_refuses_are_put_in_words() -> None:
    for model in (Tuples, Anything):
        assert strict_schema(model.model_json_schema()) is None, model
    schema = Holder.model_json_schema()
    made = strict_schema(schema)
    check_strict(made, "schema")
    assert strict_schema(schema, recursive=False) is None, "Anthropic refuses a schema that refers to itself"
    asked = ModelRequest(system="", messages=[user("?")], output_schema=schema)
    assert "output_config" not in body_of("anthropic", asked)
    assert "JSON of this schema" in json.dumps(body_of("anthropic", asked)["system"])
    assert "text" in body_of("responses", asked)


def test_a_text_file_is_read_to_a_model_that_takes_none() -> None:
    data = b64encode(b"city,sun\nRome,9").decode()
    table = FilePart(media_type="text/csv; charset=utf-8", data=data, name="sun.csv")
    for made in (chat.image_or_pdf(table), anthropic_messages.DIALECT.file(table), responses.DIALECT.file(table)):
        assert made == TextPart(text="[a file: sun.csv, text/csv; charset=utf-8]\ncity,sun\nRome,9")
    assert "left out" in unreadable(FilePart(media_type="text/plain", data=b64encode(b"\xff\xfe").decode())).text
    assert "left out" in unreadable(FilePart(media_type="application/zip", data=data)).text


# -- answers


@pytest.mark.parametrize(
    "arguments", [{}, {"arguments": None}, {"arguments": ""}, {"arguments": " "}, {"arguments": {}}]
)
def test_a_call_without_arguments_has_none(arguments: dict[str, Any]) -> None:
    asked = {"id": "1", "type": "function", "function": {"name": "weather", **arguments}}
    (call,) = read_chat({"tool_calls": [asked]}, "tool_calls").message.tool_calls
    assert call.arguments == {}
    item = {"type": "function_call", "call_id": "1", "name": "weather", **arguments}
    answer = responses.answer({"status": "completed", "output": [item]}, question(user("?")))
    assert answer.message.tool_calls[0].arguments == {}
    block = {"type": "tool_use", "id": "1", "name": "weather", **({"input": None} if arguments else {})}
    claude = anthropic_messages.answer({"content": [block], "stop_reason": "tool_use"}, turn=0)
    assert claude.message.tool_calls[0].arguments == {}


@pytest.mark.parametrize(
    "kind",
    ["mcp_approval_request", "custom_tool_call", "shell_call", "local_shell_call", "apply_patch_call", "computer_call"],
)
def test_what_only_another_program_could_do_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UnanswerableError, match=kind):
        responses.answer({"status": "completed", "output": [{"type": kind, "id": "1"}]}, question(user("?")))


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_background_answer_is_not_asked_for_again(status: str) -> None:
    with pytest.raises(UnanswerableError, match="background"):
        responses.answer({"status": status, "output": []}, question(user("?")))


def test_an_unknown_reason_to_stop_is_refused_if_nothing_was_said() -> None:
    with pytest.raises(UnanswerableError, match="'sleepy'"):
        read_chat({"content": None}, "sleepy")
    assert read_chat({"content": "good night"}, "sleepy").stop_reason == "end"
    with pytest.raises(UnanswerableError, match="'sleepy'"):
        anthropic_messages.answer({"content": [], "stop_reason": "sleepy"}, turn=0)


def test_a_container_goes_on_with_the_next_turn() -> None:
    data = {
        "content": [{"type": "text", "text": "ran"}],
        "stop_reason": "end_turn",
        "container": {"id": "c-1", "expires_at": "2099-01-01T00:00:00Z"},
    }
    message = anthropic_messages.answer(data, turn=0).message
    assert message.text == "ran"
    said: list[Message] = [user("run"), message, user("again")]
    made = body_of("anthropic", ModelRequest(system="", messages=said))
    assert made["container"] == "c-1"
    assert json.dumps(made["messages"]).count("c-1") == 0
    skills = {"container": {"skills": [{"type": "anthropic", "skill_id": "pptx"}]}}
    assert body_of("anthropic", ModelRequest(system="", messages=said, options=skills))["container"] == {
        "id": "c-1",
        "skills": [{"type": "anthropic", "skill_id": "pptx"}],
    }
    data["container"] = {"id": "c-2", "expires_at": "2020-01-01T00:00:00Z"}
    said.append(anthropic_messages.answer(data, turn=1).message)
    assert "container" not in body_of("anthropic", ModelRequest(system="", messages=[*said, user("?")]))


def test_a_compaction_in_between_goes_on_and_is_counted() -> None:
    made = StreamedClaude()
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"role": "assistant", "model": "m", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction", "content": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "in "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "short"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "compaction"},
            "usage": {
                "output_tokens": 2,
                "iterations": [
                    {"type": "compaction", "input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": 50},
                    {"type": "message", "input_tokens": 3, "output_tokens": 2},
                ],
            },
        },
        {"type": "message_stop"},
    ]
    for event in events:
        list(made.take(event))
    answer = anthropic_messages.answer(made.data, turn=0)
    assert answer.stop_reason == "pause"
    assert answer.message.parts == [OpaquePart(data={"type": "compaction", "content": "in short"})]
    assert answer.usage == Usage(input_tokens=153, output_tokens=22, cached_tokens=50)


DEEPSEEK, ROUTER = "api.deepseek.com", "openrouter.ai"


def again(server: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    model = OpenAIModel("m", key=KEY, base_url=f"https://{server}/v1")
    made: list[dict[str, Any]] = model._body(ModelRequest(system="", messages=messages))["messages"]
    return made


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_goes_back_to_the_server_that_made_it(field: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    thought = read_chat({field: "hm", "tool_calls": [call]}, "tool_calls", DEEPSEEK).message
    said: list[Message] = [user("?"), thought, ToolResultMessage(call_id="1", name="weather", content="sun")]
    assert again(DEEPSEEK, said)[1][field] == "hm"
    assert field not in again("other.example", said)[1]
    assert field not in again(DEEPSEEK, [*said, assistant("sun"), user("and?")])[1], "only within one turn"
    assert body_of("responses", ModelRequest(system="", messages=said))


def test_reasoning_details_go_back_as_they_came() -> None:
    made = StreamedChat()
    pieces: list[dict[str, Any]] = [
        {"reasoning": "h", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "h"}]},
        {"reasoning": "m", "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "m"}]},
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "signature": "s=="}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "x"}]},
        {"content": "sun"},
    ]
    for piece in pieces:
        list(made.take({"choices": [{"delta": piece}]}))
    list(made.take({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    answer = chat.answer(made.data, question(user("?")), origin="openai-chat", server=ROUTER)
    details = [
        {"type": "reasoning.text", "index": 0, "text": "hm", "signature": "s=="},
        {"type": "reasoning.encrypted", "index": 1, "data": "x"},
    ]
    assert answer.message.parts[0] == ThinkingPart(text="hm", native={"server": ROUTER, "details": details})
    assert again(ROUTER, [user("?"), answer.message, user("and?")])[1]["reasoning_details"] == details


def test_content_may_be_a_list() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "it is "},
        {"type": "text", "text": "sunny"},
    ]
    assert read_chat({"content": content}).message.parts == [ThinkingPart(text="hm"), TextPart(text="it is sunny")]
    made = StreamedChat()
    deltas = [delta for part in content for delta in made.take({"choices": [{"delta": {"content": [part]}}]})]
    assert [delta.kind for delta in deltas] == ["thinking", "text", "text"]
    list(made.take({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    assert read_chat(made.data["choices"][0]["message"]).message.text == "it is sunny"


ERRORS = [
    ({"error": {"code": 502, "message": "down"}}, True),
    ({"error": {"code": 400, "message": "bad"}}, False),
    ({"error": {"code": 429, "message": "slow"}}, True),
    ({"error": {"type": "invalid_request_error", "message": "bad"}}, False),
    (chat_answer({"content": "it is"}, "error", error=None), True),
    ({"choices": [{**chat_answer({})["choices"][0], "error": {"code": 403, "message": "no"}}]}, False),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("body", "retriable"), ERRORS)
async def test_an_error_under_status_200_is_an_error(body: dict[str, Any], retriable: bool) -> None:
    async with serving(body) as (url, _):
        model = OpenAIModel("m", key=KEY, base_url=f"{url}/v1")
        with pytest.raises(ModelError) as raised:
            await model.complete(question(user("?")))
    assert raised.value.retriable is retriable


def test_a_badly_written_call_is_sampled_again() -> None:
    failures = Failures("openai", "m")
    assert failures.answered(400, "Failed to call a function", code="tool_use_failed").retriable
    assert not failures.answered(400, "bad", code="other").retriable


@pytest.mark.asyncio
@pytest.mark.parametrize("extra", ["service_tier", "speed", "cache", "search", "geo"])
async def test_what_the_price_list_cannot_tell_has_no_price(extra: str) -> None:
    usage: dict[str, Any] = {"input_tokens": 10, "output_tokens": 5}
    more: dict[str, dict[str, Any]] = {
        "service_tier": {"service_tier": "priority"},
        "speed": {"speed": "fast"},
        "geo": {"inference_geo": "us"},
        "cache": {"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 5}},
        "search": {"server_tool_use": {"web_search_requests": 1}},
    }
    known = {"id": "1", "type": "message", "role": "assistant", "model": "claude-opus-4-6", "stop_reason": "end_turn"}
    said = {**known, "content": [{"type": "text", "text": "ok"}]}
    async with serving({**said, "usage": usage}, {**said, "usage": {**usage, **more[extra]}}) as (url, _):
        model = AnthropicModel("claude-opus-4-6", key=KEY, base_url=url)
        assert (await model.complete(question(user("?")))).cost
        assert (await model.complete(question(user("?")))).cost is None


# -- litellm


def gemini(*chunks: Mapping[str, Any]) -> str:
    return "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks)


def candidate(part: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    content = {"role": "model", "parts": [part]}
    return {"candidates": [{"content": content, "index": 0, **fields}], "usageMetadata": usage, "modelVersion": "g"}


CALLED = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}


gemini_warns = pytest.mark.filterwarnings("ignore:Item 'index' on TypedDict class:UserWarning")  # litellm's own model


@gemini_warns
@pytest.mark.asyncio
@pytest.mark.parametrize("part", [{"text": "sun"}, CALLED], ids=["text", "call"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_gemini_through_litellm(part: dict[str, Any], streamed: bool) -> None:
    whole = candidate(part, finishReason="STOP")
    body: Any = gemini(candidate({"text": "the "}), whole) if streamed else whole
    async with serving(body) as (url, _):
        model = LiteLLMModel("gemini/gemini-2.5-pro", key=KEY, base_url=url)
        answer, _ = await ask(model, ModelRequest(system="", messages=[user("?")], tools=[WEATHER]), streamed)
        await close_litellm()
    if "text" in part:
        assert answer.message.text == ("the sun" if streamed else "sun")
    else:
        assert [call.arguments for call in answer.message.tool_calls] == [{"city": "Rome"}]
    assert answer.usage.output_tokens == 2


@gemini_warns
@pytest.mark.asyncio
async def test_a_stream_of_gemini_that_is_cut_is_no_answer() -> None:
    async with serving(gemini(candidate({"text": "the "}))) as (url, _):
        model = LiteLLMModel("gemini/gemini-2.5-pro", key=KEY, base_url=url)
        with pytest.raises(ModelError, match="cut") as raised:
            await ask(model, question(user("?")), True)
        await close_litellm()
    assert raised.value.retriable


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "names"),
    [("deepseek/deepseek-chat", "DEEPSEEK_API_KEY"), ("gemini/gemini-2.5-pro", "GOOGLE_API_KEY or GEMINI_API_KEY")],
)
async def test_no_key_is_final_on_litellm_too(model: str, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEEPSEEK_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match=names) as raised:
        await LiteLLMModel(model).complete(question(user("?")))
    assert not raised.value.retriable


# -- clients


class _Client:
    """A client that says when it is closed."""

    def __init__(self, closed: list[int], key: int) -> None:
        self.closed = closed
        self.key = key

    async def close(self) -> None:
        self.closed.append(self.key)


def test_all_calls_of_a_loop_share_a_client_which_ends_with_the_loop() -> None:
    made: list[int] = []
    closed: list[int] = []

    def make(key: int) -> _Client:
        made.append(key)
        return _Client(closed, key)

    clients = Clients(make)

    async def call(key: int) -> _Client:
        async with clients.client(key) as client:
            await asyncio.sleep(0)
            return client

    async def calls(*keys: int) -> int:
        return len({id(client) for client in await asyncio.gather(*map(call, keys))})

    assert asyncio.run(calls(*[1] * 200, 2)) == 2
    assert made == [1, 2]
    assert sorted(closed) == [1, 2]
    assert asyncio.run(calls(1)) == 1
    assert made == [1, 2, 1], "another loop has a client of its own"


def test_keys_that_change_leave_no_heap_of_clients() -> None:
    closed: list[int] = []

    def make(key: int) -> _Client:
        return _Client(closed, key)

    clients = Clients(make)

    async def run() -> None:
        async with clients.client(-1):
            for key in range(3 * KEPT):
                async with clients.client(key):
                    pass
            assert -1 not in closed, "a client in use is not closed"
            assert len(closed) == 2 * KEPT + 1

    asyncio.run(run())


@pytest.mark.parametrize("case", [ANTHROPIC, CHAT, RESPONSES], ids=lambda case: case.id)
def test_two_hundred_calls_at_once_open_one_client(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> int:
        async with LLMServer(lambda asked: "ok") as server:
            model = case.model(server)
            clients = sys.modules[type(model).__module__]._CLIENTS
            made: list[Any] = []
            make = clients._make

            def counted(*identity: Any) -> Any:
                made.append(identity)
                return make(*identity)

            monkeypatch.setattr(clients, "_make", counted)
            answers = await asyncio.gather(*(model.complete(question(user("?"))) for _ in range(200)))
            assert {answer.message.text for answer in answers} == {"ok"}
            return len(made)

    assert asyncio.run(run()) == 1
