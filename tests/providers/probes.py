"""What each row of the feature table is found by: the probes of requests, messages and tools."""

from __future__ import annotations

import dataclasses
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durably.core import Agent, DefinitionError, ModelError, user
from durably.core.messages import (
    AssistantMessage,
    ContentPart,
    FilePart,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest, Usage
from durably.core.server_tools import CodeExecution, RemoteMCP, ToolSearch, WebSearch
from durably.testing import call
from durably.testing.models.llm_server import Fault, LLMServer
from durably.testing.models.scripted import Reply
from tests.providers.cases import (
    ANTHROPIC,
    WEATHER,
    Case,
    ask,
    question,
)
from tests.providers.test_features import PDF, PNG, Forecast, reply, talk

URL = "https://x.test/f"
ASKED = ToolCall(id="c1", name="weather", arguments={"city": "X"})

Probe = Callable[[Case], Awaitable[str]]


async def heard(case: Case, request: ModelRequest, answer: Reply = "ok") -> ModelRequest:
    _, server = await talk(case, False, answer, request)
    return server.requests[0]


def files(*messages: object) -> list[FilePart]:
    contents = [message.content for message in messages if isinstance(message, UserMessage | ToolResultMessage)]
    return [part for content in contents for part in content if isinstance(part, FilePart)]


async def basics(case: Case) -> str:
    request = question(user("?"), options={"tool_choice": "required"})
    response, server = await talk(case, True, [call("weather", city="A"), call("weather", city="B")], request)
    choice = server.requests[0].options["tool_choice"]
    assert choice in ("required", {"type": "any"})
    return "yes" if len(response.message.tool_calls) == 2 and server.requests[0].system == "Be brief." else "no"


async def streaming(case: Case) -> str:
    async with LLMServer("It is sunny in Berlin, and everywhere.") as server:
        _, deltas = await ask(case.model(server), question(user("?")), True)
    return "yes" if len(deltas) > 1 else "no"


async def tool_error(case: Case) -> str:
    failed = ToolResultMessage(call_id="c1", name="weather", content="gone", is_error=True)
    request = await heard(case, question(user("?"), AssistantMessage(parts=[ASKED], provider=case.origin), failed))
    result = request.messages[2]
    assert isinstance(result, ToolResultMessage)
    return "marked as one" if result.is_error else "said in its text" if "Error" in str(result.content) else "lost"


def file_in_message(media_type: str, data: str) -> Probe:
    async def probe(case: Case) -> str:
        found = []
        for word, part in {
            "by value": FilePart(media_type=media_type, data=data),
            "by address": FilePart(media_type=media_type, url=URL),
        }.items():
            asked: list[ContentPart] = [TextPart(text="What is it?"), part]
            request = await heard(case, question(UserMessage(content=asked)))
            if [(each.data, each.url) for each in files(*request.messages)] == [(part.data, part.url)]:
                found.append(word)
            else:
                assert "a file was left out here" in str(request.messages[0]), "never without a word"
        return {0: "no", 1: "".join(found), 2: "by value or address"}[len(found)]

    return probe


async def sounds(case: Case) -> str:
    found = {await file_in_message(kind, PNG)(case) for kind in ("audio/wav", "audio/mpeg")}
    return {"no": "no", "by value": "WAV, MP3"}[found.pop()]


async def files_in_results(case: Case) -> str:
    image = FilePart(media_type="image/png", data=PNG)
    result = ToolResultMessage(call_id="c1", name="weather", content=[TextPart(text="The map:"), image])
    request = await heard(case, question(user("?"), AssistantMessage(parts=[ASKED], provider=case.origin), result))
    results = [message for message in request.messages if isinstance(message, ToolResultMessage)]
    if files(*results):
        return "yes"
    return "in a user message after them" if files(*request.messages) else "no"


async def thinking_shown(case: Case) -> str:
    thought = ThinkingPart(text="Let me think about it.", signature="signed==")
    async with LLMServer(reply(thought, TextPart(text="ok"))) as server:
        response, deltas = await ask(case.model(server), question(user("?")), True)
    shown = "".join(delta.text for delta in deltas if delta.kind == "thinking")
    assert shown == thought.text
    return "yes" if any(isinstance(part, ThinkingPart) for part in response.message.parts) else "in the stream"


async def thinking_goes_back(case: Case) -> str:
    thought = ThinkingPart(text="Let me think about it.", signature="signed==")
    response, _ = await talk(case, False, reply(thought, TextPart(text="ok")))
    request = await heard(case, question(user("?"), response.message, user("Sure?")))
    said = request.messages[1]
    assert isinstance(said, AssistantMessage)
    return "yes" if any(isinstance(part, ThinkingPart | OpaquePart) for part in said.parts) else "no"


async def structured_output(case: Case) -> str:
    request = question(user("?"), output_schema=Forecast.model_json_schema(), tools=[])
    return "by schema" if (await heard(case, request, "{}")).output_schema else "in words"


async def refusals(case: Case) -> str:
    no = reply(RefusalPart(text="I cannot."), stop_reason="refusal")
    answers = [(await talk(case, streamed, no))[0] for streamed in (False, True)]
    return "yes" if all(each.message.parts == [RefusalPart(text="I cannot.")] for each in answers) else "no"


async def pauses(case: Case) -> str:
    async with LLMServer(reply(TextPart(text="Let me see."), stop_reason="pause")) as server:
        response, _ = await ask(case.model(server), question(user("?")), False)
    return "yes" if response.stop_reason == "pause" else "none exist"


async def usage(case: Case) -> str:
    counts = Usage(input_tokens=100, output_tokens=40, cached_tokens=30, reasoning_tokens=15)
    response, _ = await talk(case, True, reply(TextPart(text="ok"), usage=counts))
    return "yes" if response.usage == counts else "no"


async def errors(case: Case) -> str:
    async with LLMServer("never", faults=[Fault.answer(529)]) as server:
        with pytest.raises(ModelError) as raised:
            await case.model(server).complete(question(user("?")))
    return "yes" if raised.value.request_id and raised.value.status == 529 else "no"


async def prompt_cache(case: Case) -> str:
    _, server = await talk(case, False, "ok", question(user("?")))
    return "by breakpoints" if "cache_control" in str(server.received[0].json()) else "by itself"


async def server_tools(case: Case) -> str:
    gaps = []
    async with LLMServer("never") as server:
        for each in (WebSearch(), CodeExecution(), ToolSearch(), RemoteMCP(name="d", url="https://x.test")):
            try:
                Agent("a", model=case.model(server), instructions="", tools=[each])
            except DefinitionError:
                gaps.append(each)
    return {0: "yes", 4: "no"}[len(gaps)]


async def told_tool(case: Case, **fields: Any) -> dict[str, Any]:
    """A tool as the provider was told of it."""
    request = question(user("?"), tools=[dataclasses.replace(WEATHER, **fields)])
    _, server = await talk(case, False, "ok", request)
    [told] = server.received[0].json()["tools"]
    return {**told, **told.get("function", {})}


async def strict_tools(case: Case) -> str:
    try:
        return "yes" if (await told_tool(case, strict=True))["strict"] is True else "lost"
    except ModelError as error:
        return "no" if "is strict" in str(error) else str(error)


async def examples(case: Case) -> str:
    told = await told_tool(case, examples=[{"city": "Rome"}])
    if told.get("input_examples"):
        return "as examples"
    return "in the description" if "Rome" in told["description"] else "lost"


async def text_files(case: Case) -> str:
    table = FilePart(media_type="text/csv", data=b64encode(b"city,sun").decode())
    request = await heard(case, question(UserMessage(content=[table])))
    return "as text" if "city,sun" in str(request.messages[0]) else "no"


async def own_client(case: Case) -> str:
    return "yes" if case.client is not None else "no"


async def native_fields(case: Case) -> str:
    field = {"cache_control": {"type": "ephemeral"}} if case is ANTHROPIC else {"x-tested": True}
    name = "anthropic" if case is ANTHROPIC else "openai"
    async with LLMServer("ok", faults=lambda _: Fault.answer(418)) as server:
        request = question(user("?"), tools=[dataclasses.replace(WEATHER, native={name: field})])
        with pytest.raises(ModelError):
            await ask(case.model(server), request, False)
        sent = server.received[0].body.decode()
    return "yes" if next(iter(field)) in sent else "no"


PROBES: dict[str, Probe] = {
    "text, parallel calls, system prompt, tool choice": basics,
    "streaming": streaming,
    "a tool's error": tool_error,
    "images: user's message": file_in_message("image/png", PNG),
    "PDF: user's message": file_in_message("application/pdf", PDF),
    "sound: user's message": sounds,
    "files of text": text_files,
    "files in tool results": files_in_results,
    "thinking shown": thinking_shown,
    "thinking goes back": thinking_goes_back,
    "structured output": structured_output,
    "refusals, with the words": refusals,
    "paused turns (`pause_turn`)": pauses,
    "cached and reasoning tokens": usage,
    "status and request id in errors": errors,
    "prompt cache": prompt_cache,
    "`WebSearch`, `CodeExecution`, `ToolSearch`, `RemoteMCP`": server_tools,
    "`@tool(strict=True)`": strict_tools,
    "`@tool(examples=)`": examples,
    "`@tool(native=)`": native_fields,
    "a client of your own": own_client,
}
"""The rows, and what finds each."""
