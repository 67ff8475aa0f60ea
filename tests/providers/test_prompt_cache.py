"""An agent of fifty turns pays about what the best possible prompt cache would let it pay, with every provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from litellm.llms.bedrock.chat.converse_transformation import AmazonConverseConfig

from durably.backends import MemoryBackend
from durably.core import Agent, tool, user
from durably.core.messages import AssistantMessage, Message, OpaquePart, TextPart, ToolCall, ToolResultMessage
from durably.core.model import Model, ModelRequest, ModelResponse, Usage
from durably.core.result import AgentResult
from durably.providers import Key
from durably.providers.anthropic import AnthropicModel
from durably.providers.chat_cache import wants_breakpoints
from durably.providers.litellm import LiteLLMModel
from durably.testing import ScriptedModel, call
from durably.testing.models.llm_server import LLMServer
from durably.testing.models.prompt_cache import PromptCache
from tests.providers.cases import ANTHROPIC, LITELLM_ANTHROPIC, RESPONSES, Case, close_litellm, question
from tests.providers.converse import converse_server
from tests.providers.subjects import ENV
from tests.providers.test_litellm_routes import AWS

TURNS = 50
PRICES = {True: (0.1, 1.25), False: (0.1, 1.0)}
"""What a token costs that is read from the cache, and one that is not there yet, beside one without a cache: at
Anthropic, which takes a quarter more for writing, and at OpenAI."""


@tool
async def look_up(place: int) -> str:
    """Look something up."""
    return f"{place}: " + "what stands there, in some detail. " * 30


def working(request: ModelRequest) -> Any:
    return "done" if request.turn == TURNS - 1 else call("look_up", place=request.turn)


async def work(case: Case, prompt_cache: PromptCache, **changes: Any) -> AgentResult:
    async with LLMServer(working, prompt_cache=prompt_cache) as server:
        model = case.model(server)
        if changes:
            model = type(model)(**{**vars(model), **changes})
        return await work_with(model)


async def work_with(model: Model) -> AgentResult:
    agent = Agent(
        "a", model=model, instructions="Be thorough, and look twice. " * 600, tools=[look_up], max_iterations=TURNS
    )
    async with MemoryBackend([agent]) as backend:
        return await backend.invoke(agent, "Look everything up.")


def billed(usage: Usage, read_price: float, write_price: float) -> float:
    new = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    return new + read_price * usage.cached_tokens + write_price * usage.cache_write_tokens


@pytest.mark.asyncio
async def test_fifty_turns(case: Case) -> None:
    cache = PromptCache()
    result = await work(case, cache)
    check(case.id, result, cache, *PRICES[case in (ANTHROPIC, LITELLM_ANTHROPIC)])


def check(name: str, result: AgentResult, cache: PromptCache, read_price: float, write_price: float) -> None:
    assert (result.text, result.iterations, len(cache.ideal)) == ("done", TURNS, TURNS)
    ideal = sum(read_price * read + write_price * new for read, new in cache.ideal)
    paid = billed(result.usage, read_price, write_price)
    print(f"\n{name}: billed {paid:,.0f}, ideal {ideal:,.0f}, without a cache {result.usage.input_tokens:,}")
    assert paid <= 1.2 * ideal
    assert result.usage.input_tokens > 4 * paid
    assert result.cache_breaks == []


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["us.anthropic.claude-sonnet-4-6", "amazon.nova-pro-v1:0"])
async def test_fifty_turns_on_bedrock_through_litellm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "nova" in name:
        monkeypatch.setattr("tests.providers.test_prompt_cache.TURNS", 6)
    for variable, value in AWS.items():
        monkeypatch.setenv(variable, value)
    cache = PromptCache()
    async with converse_server(cache, TURNS, "look_up") as url:
        result = await work_with(LiteLLMModel(f"bedrock/{name}", base_url=url))
    await close_litellm()
    if "claude" in name:
        check(f"litellm-bedrock: {name}", result, cache, *PRICES[True])
    else:  # it takes no breakpoint behind a result, so what tools said is read anew
        assert (result.text, result.iterations) == ("done", TURNS)
        assert result.usage.cached_tokens > result.usage.input_tokens / 2


@pytest.mark.asyncio
@pytest.mark.parametrize("case", [ANTHROPIC, LITELLM_ANTHROPIC], ids=lambda case: case.id)
async def test_one_switch_turns_it_off(case: Case) -> None:
    result = await work(case, PromptCache(), cache=False)
    assert (result.usage.cached_tokens, result.usage.cache_write_tokens) == (0, 0)


class Forgetful(PromptCache):
    """A cache that loses all at the third request."""

    def usage(self, path: str, body: Mapping[str, Any]) -> Usage:
        if len(self.ideal) == 2:
            self._kept.clear()
        return super().usage(path, body)


@pytest.mark.asyncio
@pytest.mark.parametrize("case", [ANTHROPIC, RESPONSES], ids=lambda case: case.id)
async def test_the_result_says_where_the_cache_broke(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.providers.test_prompt_cache.TURNS", 6)
    assert (await work(case, Forgetful())).cache_breaks == [3]


@pytest.mark.asyncio
async def test_a_break_is_read_from_the_records() -> None:
    counts = [
        Usage(input_tokens=20, cache_write_tokens=10),
        Usage(input_tokens=20, cached_tokens=10, cache_write_tokens=5),
        Usage(input_tokens=20, cached_tokens=14),
    ]

    def answer(request: ModelRequest) -> Any:
        parts: list[Any] = [TextPart(text="done")]
        if request.turn < 2:
            parts = [ToolCall(id=f"c{request.turn}", name="look_up", arguments={"place": 1})]
        return ModelResponse(message=AssistantMessage(parts=parts), usage=counts[request.turn])

    agent = Agent("a", model=ScriptedModel(answer), instructions="", tools=[look_up])
    async with MemoryBackend([agent]) as backend:
        result = await backend.invoke(agent, "?")
    assert result.cache_breaks == [3]
    assert result.usage.cached_tokens == 24


# -- where it is marked


@pytest.mark.parametrize(
    ("model", "route", "marked"),
    [
        ("anthropic/claude-opus-4-6", "anthropic", True),
        ("bedrock/us.anthropic.claude-sonnet-4-6-v1:0", "bedrock", True),
        ("bedrock/amazon.nova-pro-v1:0", "bedrock", True),
        ("bedrock/meta.llama3-70b-instruct-v1:0", "bedrock", False),
        ("vertex_ai/claude-opus-4-6", "vertex_ai", True),
        ("vertex_ai/gemini-2.5-pro", "vertex_ai", False),
        ("openrouter/anthropic/claude-opus-4.6", "openrouter", True),
        ("openrouter/openai/gpt-5", "openrouter", False),
        ("gemini/gemini-2.5-pro", "gemini", False),
        ("groq/llama-3.3-70b", "groq", False),
    ],
)
def test_who_is_told_by_breakpoints(model: str, route: str, marked: bool) -> None:
    assert wants_breakpoints(model, route) is marked


def test_bedrock_gets_its_cache_points() -> None:
    name = "us.anthropic.claude-sonnet-4-6"
    model = LiteLLMModel(f"bedrock/{name}", key=Key(env=ENV))
    asked = AssistantMessage(parts=[ToolCall(id="c1", name="weather", arguments={"city": "Rome"})])
    sun = ToolResultMessage(call_id="c1", name="weather", content="sun")
    made = model._arguments(question(user("?"), asked, sun, reminder="hurry"), "k", "litellm:bedrock")
    config = AmazonConverseConfig()
    optional = config.map_openai_params({"tools": made["tools"]}, {}, name, False)
    body: dict[str, Any] = dict(config._transform_request(name, made["messages"], optional, {}, {}))
    assert "cachePoint" in body["toolConfig"]["tools"][-1]
    assert "cachePoint" in body["system"][-1]
    assert [json.dumps(message).count("cachePoint") for message in body["messages"]] == [1, 0, 1]


@pytest.mark.parametrize("name", ["user", "tool"])
def test_a_reminder_stands_behind_the_last_breakpoint(name: str) -> None:
    asked = AssistantMessage(parts=[ToolCall(id="c1", name="weather", arguments={"city": "Rome"})])
    sun = ToolResultMessage(call_id="c1", name="weather", content="sun")
    said: list[Message] = [user("?"), asked, sun]
    request = question(*said[: 1 if name == "user" else 3], reminder="hurry")
    claude = AnthropicModel("claude-opus-4-6", key=Key(env=ENV))._body(request)["messages"][-1]["content"]
    routed = LiteLLMModel("anthropic/claude-opus-4-6", key=Key(env=ENV))._arguments(request, "k", "litellm:anthropic")
    for blocks in (claude, [block for message in routed["messages"][-2:] for block in message["content"]]):
        assert ["cache_control" in block for block in blocks] == [True, False]
        assert blocks[-1]["text"] == "hurry"


def test_a_reminder_waits_where_nothing_may_be_said() -> None:
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    paused = AssistantMessage(parts=[OpaquePart(data=search)], provider="anthropic")
    model = AnthropicModel("claude-opus-4-6", key=Key(env=ENV))
    assert "hurry" not in str(model._body(question(user("?"), paused, reminder="hurry")))
    by_code = {"caller": {"type": "code_execution_20250825", "tool_id": "s1"}}
    asked = AssistantMessage(
        parts=[ToolCall(id="c1", name="weather", arguments={"city": "Rome"}, native=by_code)], provider="anthropic"
    )
    sun = ToolResultMessage(call_id="c1", name="weather", content="sun")
    assert "hurry" not in str(model._body(question(user("?"), asked, sun, reminder="hurry")))
