"""What each row of the feature table is found by: the probes of answers, errors, costs and what comes later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, ModelError, user
from durably.core.messages import AssistantMessage, TextPart, ThinkingPart, ToolCall, ToolResultMessage, UserMessage
from durably.core.model import ModelRequest, ModelResponse, Usage
from durably.providers import Key
from durably.providers.litellm import LiteLLMModel
from durably.providers.openai import OpenAIModel
from durably.testing.models.llm_server import FORMATS, Fault, LLMServer
from durably.testing.models.prompt_cache import PromptCache
from tests.providers.cases import ANTHROPIC, CHAT, LITELLM_ANTHROPIC, LITELLM_OPENAI, RESPONSES, Case, ask, question
from tests.providers.probes import Probe, heard
from tests.providers.subjects import ENV
from tests.providers.test_documents import document
from tests.providers.test_features import reply, talk
from tests.providers.test_litellm_routes import answering

KEY = Key(env=ENV)
NONE = "none exist"
PATHS = {
    ANTHROPIC: "/v1/messages",
    LITELLM_ANTHROPIC: "/v1/messages",
    RESPONSES: "/v1/responses",
    CHAT: "/v1/chat/completions",
    LITELLM_OPENAI: "/v1/chat/completions",
}
CLAUDE = (ANTHROPIC, LITELLM_ANTHROPIC)
SPOKEN_BY_CHAT = (CHAT, LITELLM_OPENAI)


async def answered(case: Case, change: Mapping[str, Any], answer: Any = "ok", **fields: Any) -> ModelResponse:
    """What a model makes of an answer of its provider's with some fields of it changed."""
    model = "claude-opus-4-6" if case in CLAUDE else "gpt-5"
    whole = answer if isinstance(answer, ModelResponse) else reply(TextPart(text=answer))
    data = {**FORMATS[PATHS[case]].body(whole, ModelRequest(system="", messages=[]), model), **change}
    async with answering("application/json", json.dumps(data).encode()) as (url, _):
        place: Any = SimpleNamespace(url=url, openai_url=f"{url}/v1")
        made: Any = case.make(place, KEY, 10.0)
        return (await ask(replace(made, **fields), question(user("?")), False))[0]


def choice(**message: Any) -> dict[str, Any]:
    finish = message.pop("finish_reason", "stop")
    return {"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}]}


async def failure(case: Case, fault: Fault, *, streamed: bool = False) -> ModelError:
    async with LLMServer("It is sunny in Berlin, and everywhere.", faults=[fault]) as server:
        with pytest.raises(ModelError) as raised:
            await ask(case.model(server), question(user("?")), streamed)
    return raised.value


# -- answers


async def early_ends(case: Case) -> str:
    return "retried" if (await failure(case, Fault.end(2), streamed=True)).retriable else "final"


async def added_options(case: Case) -> str:
    own: dict[str, Any] = {"name": "extra", "parameters": {"type": "object", "properties": {}}}
    extra: dict[str, Any] = {"type": "function", "function": own}
    if case is RESPONSES:
        extra = {"type": "web_search"}
    elif case is ANTHROPIC:
        extra = {"name": "extra", "input_schema": own["parameters"]}
    _, server = await talk(case, False, "ok", question(user("?"), options={"tools": [extra]}))
    body = server.received[0].json()
    assert case is not RESPONSES or body["include"] == ["reasoning.encrypted_content"]
    return "added to the agent's" if len(body["tools"]) == 2 else "take their place"


async def container(case: Case) -> str:
    if case not in CLAUDE:
        return NONE
    held = {"id": "container_1", "expires_at": "2999-01-01T00:00:00Z"}
    response = await answered(case, {"container": held})
    if case is LITELLM_ANTHROPIC:
        return "no"
    async with LLMServer("x") as server:
        model: Any = case.model(server)
        body = model._body(question(user("?"), response.message, user("Go on.")))
    return "goes back" if body.get("container") == "container_1" else "lost"


async def compaction(case: Case) -> str:
    if case is not ANTHROPIC:
        return NONE
    counts = [{"input_tokens": 10, "output_tokens": 2}, {"input_tokens": 3, "output_tokens": 1}]
    block = {"type": "compaction", "content": "in short"}
    change = {"content": [block], "stop_reason": "compaction", "usage": {**counts[0], "iterations": counts}}
    response = await answered(case, change)
    assert response.usage == Usage(input_tokens=13, output_tokens=3)
    return "goes on, every iteration counted" if response.stop_reason == "pause" else "ends"


ROUTES = ("cerebras", "deepseek", "groq", "mistral", "moonshot", "openrouter", "zai")


async def plain_reasoning(case: Case) -> str:
    if case not in SPOKEN_BY_CHAT:
        return NONE
    if case is LITELLM_OPENAI:
        taken = [route for route in ROUTES if _goes_back(route)]
        return f"in its turn, on the routes {', '.join(taken)}"
    asks = {"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}
    async with LLMServer("x") as server:
        model: Any = case.model(server)
        data = choice(content=None, reasoning_content="Let me think.", finish_reason="tool_calls", **asks)
        response = model._finish(data, question(user("?")), None, None)
        result = ToolResultMessage(call_id="c1", name="weather", content="sun")
        now = model._body(question(user("?"), response.message, result))
        later = model._body(question(user("?"), response.message, result, user("And now?")))
    assert "Let me think." not in str(later)
    return "in its turn" if "Let me think." in str(now) else "lost"


def _goes_back(route: str) -> bool:
    origin = f"litellm:{route}"
    thought = ThinkingPart(text="Let me think.", native={"server": origin, "field": "reasoning_content"})
    asked = AssistantMessage(parts=[thought, ToolCall(id="c1", name="weather", arguments={})], provider=origin)
    result = ToolResultMessage(call_id="c1", name="weather", content="sun")
    made = LiteLLMModel(f"{route}/m", key=KEY)._arguments(question(user("?"), asked, result), "k", origin)
    return "Let me think." in str(made["messages"])


async def no_arguments(case: Case) -> str:
    bare: dict[str, Any] = {"content": [{"type": "tool_use", "id": "c1", "name": "weather"}], "stop_reason": "tool_use"}
    if case in SPOKEN_BY_CHAT:
        calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}]
        bare = choice(content=None, tool_calls=calls, finish_reason="tool_calls")
    elif case is RESPONSES:
        bare = {"output": [{"type": "function_call", "id": "f1", "call_id": "c1", "name": "weather"}]}
    elif case is LITELLM_ANTHROPIC:
        bare["content"][0]["input"] = {}  # litellm itself fails without it
    [made] = (await answered(case, bare)).message.tool_calls
    return "a call with none" if made.arguments == {} else repr(made.arguments)


async def unknown_requests(case: Case) -> str:
    change: dict[str, Any] = {"content": [], "stop_reason": "new_reason"}
    if case in SPOKEN_BY_CHAT:
        change = choice(content=None, finish_reason="new_reason")
    elif case is RESPONSES:
        change = {"output": [{"type": "shell_call", "id": "s1", "call_id": "c1", "action": {"commands": ["ls"]}}]}
    try:
        await answered(case, change)
    except ModelError as error:
        return "retried" if error.retriable else "refused by name"
    return "litellm calls it an end"


async def list_content(case: Case) -> str:
    if case not in SPOKEN_BY_CHAT:
        return NONE
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Sunny."}]
    if case is LITELLM_OPENAI:  # litellm reads it on the route of the provider that gives it
        async with answering("application/json", json.dumps({"id": "1", **choice(content=parts)}).encode()) as (url, _):
            model = LiteLLMModel("mistral/mistral-large-latest", key=KEY, base_url=url)
            response, _ = await ask(model, question(user("?")), False)
    else:
        response = await answered(case, choice(content=parts))
    return "read" if response.message.text == "Sunny." else "lost"


async def errors_within(case: Case) -> str:
    with pytest.raises(ModelError) as raised:
        await answered(case, {"error": {"message": "boom", "code": "server_error"}, "choices": None, "content": None})
    return "errors" if raised.value.retriable else "final errors"


async def fine_tunes(case: Case) -> str:
    if case is not RESPONSES:
        return "need not be known"
    body = OpenAIModel("ft:o4-mini:org::id", key=KEY, api="responses")._body(question(user("?")))
    return "known as their base is" if body.get("include") else "taken for others"


SCHEMAS: dict[str, dict[str, Any]] = {
    "tuples": {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}},
    "`Any`": {"type": "object", "properties": {"a": {}}},
    "other roots": {"type": "array", "items": {"type": "string"}},
    "recursion": {
        "type": "object",
        "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["a"],
    },
}


async def odd_schemas(case: Case) -> str:
    strict = []
    for name, schema in SCHEMAS.items():
        wanted = {**schema, "required": list(schema.get("properties", {}))} if "properties" in schema else schema
        if (await heard(case, question(user("?"), output_schema=wanted, tools=[]), "{}")).output_schema:
            strict.append(name)
    return f"in words, but {' and '.join(strict)} by schema" if strict else "in words"


# -- errors, clients and costs


async def one_client(case: Case) -> str:
    async with LLMServer("ok") as server:
        model = case.model(server)
        for _ in range(3):
            await ask(model, question(user("?")), False)
        return "one for all calls" if len(server._connections) == 1 else "one a call"


async def long_waits(case: Case) -> str:
    error = await failure(case, Fault.answer(429, retry_after="86400"))
    return f"{(error.retry_after or 0) / 3600:g} hour"


async def missing_keys(case: Case) -> str:
    async with LLMServer("never") as server:
        with pytest.raises(ModelError, match="no key") as raised:
            await ask(case.make(server, Key(env="DURABLY_NO_SUCH_KEY"), 5.0), question(user("?")), False)
    return "retried" if raised.value.retriable else "a final error"


async def badly_sampled(case: Case) -> str:
    return "retried" if (await failure(case, Fault.answer(400, code="tool_use_failed"))).retriable else "final"


async def other_tiers(case: Case) -> str:
    usage = Usage(input_tokens=1000, output_tokens=100)
    fields = {"prices": "openai"} if case in (CHAT, RESPONSES) else {}
    said = reply(TextPart(text="ok"), usage=usage)
    usual = await answered(case, {}, said, **fields)
    assert usual.cost is not None
    whole = FORMATS[PATHS[case]].body(said, ModelRequest(system="", messages=[]), "m")["usage"]
    tier = {"usage": {**whole, "service_tier": "priority"}} if case in CLAUDE else {"service_tier": "priority"}
    return "`None`" if (await answered(case, tier, said, **fields)).cost is None else "as usual"


async def named_prices(case: Case) -> str:
    fields = {"prices": "openai"} if case in (CHAT, RESPONSES) else {}
    said = reply(TextPart(text="ok"), usage=Usage(input_tokens=1000, output_tokens=100))
    assert (await answered(case, {}, said, **fields)).cost is not None
    return "by `prices=`" if fields and (await answered(case, {}, said)).cost is None else "by the model's name"


# -- what comes later, documents, options


async def background(case: Case) -> str:
    async with LLMServer("ok") as server:
        try:
            response = await case.model(server).complete(question(user("?"), options={"background": True}))
        except ModelError as error:
            return NONE if server.received else "refused by name" if "background" in str(error) else str(error)
    return "yes" if response.submitted is not None else "lost"


async def batches(case: Case) -> str:
    async with LLMServer("ok") as server:
        made: Any = case.model(server)
        try:
            model = replace(made, batch=True)
        except TypeError as error:
            return "refused by name" if "batch" in str(error) else str(error)
        response = await model.complete(question(user("?")))
    return "yes" if response.submitted is not None else "lost"


async def office_documents(case: Case) -> str:
    request = await heard(case, question(UserMessage(content=[document("docx", "Sunny in Rome")])))
    return "as text" if "Sunny in Rome" in str(request.messages) else "as files"


async def told_cache(case: Case) -> str:
    cache = PromptCache()
    async with LLMServer("ok", prompt_cache=cache) as server:
        model = case.model(server)
        request = question(user("Look. " * 6000))
        usages = [(await ask(model, request, False))[0].usage for _ in range(2)]
    return "yes" if usages[1].cached_tokens > 1000 else "no"


async def chosen_options(case: Case) -> str:
    name, value = ("reasoning", {"effort": "low"}) if case is RESPONSES else ("temperature", 1.0)
    async with LLMServer("ok") as server:
        agent = Agent("a", model=case.model(server), instructions="", model_options=lambda: {name: value})
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            await run.result()
            recorded = [record.key for record in await run.history()]
    assert server.requests[0].options[name] == value
    return "recorded" if "load-options" in recorded else "lost"


async def strict_server(case: Case) -> str:
    options: dict[str, Any] = {"tool_choice": "no_such_tool"} if case is RESPONSES else {"temperature": 9}
    async with LLMServer("ok") as server:
        with pytest.raises(ModelError) as raised:
            await ask(case.model(server), question(user("?"), options=options), False)
    return "yes" if raised.value.status == 400 and not server.requests else "no"


MORE_PROBES: dict[str, Probe] = {
    "a stream that ends early": early_ends,
    "`tools` and `include` among the options": added_options,
    "the container of code execution": container,
    "an answer that stops to compact": compaction,
    "`reasoning_content` goes back": plain_reasoning,
    "a call whose arguments are missing": no_arguments,
    "what only another program could answer": unknown_requests,
    "an answer as a list of parts": list_content,
    "errors under status 200": errors_within,
    "reasoning models that are fine-tuned": fine_tunes,
    "schemas with tuples, `Any`, other roots or recursion": odd_schemas,
    "clients of a process and event loop": one_client,
    "the longest wait that a provider may name": long_waits,
    "a key that is missing": missing_keys,
    "`tool_use_failed`": badly_sampled,
    "the cost at another service tier": other_tiers,
    "the cost at an address of your own": named_prices,
    "answers in the background": background,
    "batches, at half the price": batches,
    "office documents": office_documents,
    "tokens read from the prompt cache are told": told_cache,
    "options that a function chooses": chosen_options,
    "`LLMServer` refuses what the provider refuses": strict_server,
}
"""The rows, and what finds each."""
