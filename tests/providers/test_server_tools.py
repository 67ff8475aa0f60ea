"""Tools that the provider runs, beside the agent's own: as each provider takes them, and what is refused by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from durably.backends import MemoryBackend
from durably.core import Agent, DefinitionError, ModelError, tool
from durably.core.messages import AssistantMessage, OpaquePart, TextPart
from durably.core.model import ModelRequest, ModelResponse
from durably.core.server_tools import CodeExecution, RemoteMCP, ServerTool, ToolSearch, WebSearch
from durably.testing import LLMServer, ScriptedModel, call
from tests.providers.cases import ANTHROPIC, CHAT, LITELLM_ANTHROPIC, LITELLM_OPENAI, RESPONSES, Case

pytestmark = pytest.mark.asyncio

DOCS = RemoteMCP(name="docs", url="https://docs.test/mcp", token="docs-token", allowed_tools=["search"])
TOOLS: tuple[ServerTool, ...] = (WebSearch(allowed_domains=["x.test"]), CodeExecution(), ToolSearch(), DOCS)
TOKEN = "mcp-secret-0123456789"


@tool
async def weather(city: str) -> str:
    """The weather."""
    return "sun"


async def sent(case: Case, *tools: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What a provider is sent by an agent with tools: the body and the headers."""
    async with LLMServer("done") as server:
        agent = Agent("a", model=case.model(server), instructions="", tools=tools)
        async with MemoryBackend([agent], resources={"docs-token": SecretStr(TOKEN)}) as backend:
            run = await backend.start(agent, "?")
            assert (await run.result()).text == "done"
            history = await run.history()
        assert TOKEN not in "".join(record.to_json() for record in history.records)
        return server.received[0].json(), dict(server.received[0].headers)


async def test_anthropic_takes_them_beside_the_agents_own() -> None:
    body, headers = await sent(ANTHROPIC, weather, *TOOLS)
    own, search, code, look_up, docs = body["tools"]
    assert own["name"] == "weather"
    assert search == {"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["x.test"]}
    assert code == {"type": "code_execution_20250825", "name": "code_execution"}
    assert look_up["type"] == "tool_search_tool_bm25_20251119"
    assert docs["mcp_server_name"] == "docs"
    assert (docs["default_config"], docs["configs"]) == ({"enabled": False}, {"search": {"enabled": True}})
    assert body["mcp_servers"] == [
        {"type": "url", "name": "docs", "url": "https://docs.test/mcp", "authorization_token": TOKEN}
    ]
    assert headers["anthropic-beta"] == "mcp-client-2025-11-20"
    limited, _ = await sent(ANTHROPIC, WebSearch(max_uses=3, blocked_domains=["y.test"]))
    assert (limited["tools"][0]["max_uses"], limited["tools"][0]["blocked_domains"]) == (3, ["y.test"])


async def test_openai_takes_them_beside_the_agents_own() -> None:
    body, _ = await sent(RESPONSES, weather, *TOOLS)
    own, search, code, look_up, docs = body["tools"]
    assert own["name"] == "weather"
    assert search == {"type": "web_search", "filters": {"allowed_domains": ["x.test"]}}
    assert code == {"type": "code_interpreter", "container": {"type": "auto"}}
    assert look_up == {"type": "tool_search"}
    assert docs == {
        "type": "mcp",
        "server_label": "docs",
        "server_url": "https://docs.test/mcp",
        "require_approval": "never",
        "allowed_tools": ["search"],
        "authorization": TOKEN,
    }


@pytest.mark.parametrize("case", [CHAT, LITELLM_OPENAI, LITELLM_ANTHROPIC], ids=lambda case: case.id)
@pytest.mark.parametrize("hosted", TOOLS, ids=lambda hosted: type(hosted).__name__)
async def test_a_provider_that_has_none_is_refused_by_name(case: Case, hosted: ServerTool) -> None:
    async with LLMServer("never") as server:
        with pytest.raises(DefinitionError, match=rf"cannot take {type(hosted).__name__}.*use "):
            Agent("a", model=case.model(server), instructions="", tools=[hosted])


GAPS: list[tuple[Case, ServerTool, str]] = [
    (ANTHROPIC, RemoteMCP(name="d", url="https://x.test", requires_approval=True), "asks nobody"),
    (ANTHROPIC, RemoteMCP(name="d", url="http://x.test"), "https"),
    (ANTHROPIC, WebSearch(allowed_domains=["a"], blocked_domains=["b"]), "either"),
    (RESPONSES, WebSearch(max_uses=1), "max_tool_calls"),
    (RESPONSES, WebSearch(blocked_domains=["a"]), "blocked_domains"),
]


@pytest.mark.parametrize(("case", "hosted", "why"), GAPS)
async def test_what_a_provider_lacks_of_one_is_refused(case: Case, hosted: ServerTool, why: str) -> None:
    async with LLMServer("never") as server:
        with pytest.raises(DefinitionError, match=why):
            Agent("a", model=case.model(server), instructions="", tools=[hosted])


async def test_what_cannot_be_is_refused_at_the_definition() -> None:
    async with LLMServer("never") as server:
        model = ANTHROPIC.model(server)
        with pytest.raises(DefinitionError, match="given once"):
            Agent("a", model=model, instructions="", tools=[WebSearch(), WebSearch(max_uses=1)])
        with pytest.raises(DefinitionError, match="tools of its own"):
            Agent("a", model=ScriptedModel("x"), instructions="", tools=[WebSearch()])
        with pytest.raises(DefinitionError, match="use api='responses'"):
            Agent("a", model=model, fallback=CHAT.model(server), instructions="", tools=[WebSearch()])
        with pytest.raises(DefinitionError, match=r"add ToolSearch\(\)"):
            Agent("a", model=model, instructions="", tools=[tool(deferred=True)(weather.fn)])
    with pytest.raises(DefinitionError, match="60 letters"):
        RemoteMCP(name="my docs", url="https://x.test")


@pytest.mark.parametrize("case", [ANTHROPIC, RESPONSES], ids=lambda case: case.id)
async def test_a_token_that_is_missing_is_a_final_error(case: Case) -> None:
    async with LLMServer("never") as server:
        agent = Agent("a", model=case.model(server), instructions="", tools=[DOCS])
        async with MemoryBackend([agent]) as backend:
            with pytest.raises(Exception, match="give the backend resources="):
                await backend.invoke(agent, "?")
    assert server.received == []


# -- approvals of a remote server

WANTED = {
    "type": "mcp_approval_request",
    "id": "mcpr_" + "1" * 48,
    "server_label": "docs",
    "name": "delete",
    "arguments": '{"page": 7}',
}
ASKING = RemoteMCP(name="docs", url="https://docs.test/mcp", requires_approval=True)


def deciding(request: ModelRequest) -> Any:
    if request.turn == 0:
        return ModelResponse(message=AssistantMessage(parts=[OpaquePart(data=WANTED)]))
    return ModelResponse(message=AssistantMessage(parts=[TextPart(text="so be it")]))


@pytest.mark.parametrize("decision", ["approve", "reject", "change"])
async def test_a_person_approves_the_call_of_a_remote_server(decision: str) -> None:
    async with LLMServer(deciding) as server:
        agent = Agent("a", model=RESPONSES.model(server), instructions="", tools=[ASKING])
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "Delete page 7.")
            while not (found := await backend.approvals()):  # noqa: ASYNC110  # the question has no event of its own
                await asyncio.sleep(0.005)
            [pending] = found
            assert (pending.tool, pending.arguments) == ("mcp_docs", {"tool": "delete", "arguments": {"page": 7}})
            if decision == "reject":
                await backend.reject(pending, "too dangerous", by="ann")
            else:
                changed = {"tool": "delete", "arguments": {"page": 8}} if decision == "change" else None
                await backend.approve(pending, by="ann", arguments=changed)
            result = await run.result()
    assert (result.text, result.iterations) == ("so be it", 2)
    asked, answered = server.received[1].json()["input"][1:]
    assert asked == WANTED
    assert (answered["type"], answered["approval_request_id"]) == ("mcp_approval_response", WANTED["id"])
    assert answered["approve"] is (decision == "approve")
    told = {"approve": None, "reject": "too dangerous", "change": '"page": 8'}[decision]
    assert "reason" not in answered if told is None else told in answered["reason"]
    assert "mcp_docs" not in str(server.received[0].json()["tools"])


async def test_an_approval_that_nobody_can_give_is_refused_by_name() -> None:
    async with LLMServer(deciding) as server:
        model = RESPONSES.model(server)
        with pytest.raises(ModelError, match="requires_approval=True"):
            await model.complete(ModelRequest(system="", messages=[], server_tools=[]))


# -- what a provider is told of the agent's own tools


@tool(
    strict=True,
    deferred=True,
    examples=[{"city": "Rome"}],
    native={"anthropic": {"allowed_callers": ["direct"]}, "openai": {"allowed_callers": ["direct"]}},
)
async def forecast(city: str, days: int = 3) -> str:
    """The weather to come."""
    return "sun"


async def test_fields_of_a_tool_reach_each_provider() -> None:
    body, _ = await sent(ANTHROPIC, weather, forecast, ToolSearch())
    made = next(each for each in body["tools"] if each["name"] == "forecast")
    assert (made["strict"], made["defer_loading"], made["allowed_callers"]) == (True, True, ["direct"])
    assert made["input_examples"] == [{"city": "Rome"}]
    assert made["input_schema"]["required"] == ["city", "days"]
    assert "cache_control" not in made, "it is not in the prompt"
    body, _ = await sent(RESPONSES, weather, forecast, ToolSearch())
    made = next(each for each in body["tools"] if each.get("name") == "forecast")
    assert (made["strict"], made["defer_loading"], made["allowed_callers"]) == (True, True, ["direct"])
    assert made["description"] == 'The weather to come.\nAn example of its arguments: {"city": "Rome"}'


@pytest.mark.parametrize("case", [CHAT, LITELLM_OPENAI, LITELLM_ANTHROPIC], ids=lambda case: case.id)
async def test_strict_tools_and_examples_in_the_chat_format(case: Case) -> None:
    async with LLMServer(call("exact", city="Rome", days=1), "done") as server:
        exact = tool(name="exact", strict=True, examples=[{"city": "Rome", "days": 2}])(forecast.fn)
        agent = Agent("a", model=case.model(server), instructions="", tools=[exact])
        async with MemoryBackend([agent]) as backend:
            if case is LITELLM_ANTHROPIC:
                with pytest.raises(Exception, match="litellm does not pass on to Claude"):
                    await backend.invoke(agent, "?")
                return
            assert (await backend.invoke(agent, "?")).text == "done"
    [made] = server.received[0].json()["tools"]
    made = {**made, **made.get("function", {})}
    assert made.get("strict") is True
    assert "An example of its arguments" in made["description"]


async def test_a_strict_tool_without_a_strict_form_is_refused_by_name(case: Case) -> None:
    @tool(strict=True)
    async def loose(anything: dict[str, int]) -> str:
        """Anything."""
        return ""

    async with LLMServer("never") as server:
        agent = Agent("a", model=case.model(server), instructions="", tools=[loose])
        async with MemoryBackend([agent]) as backend:
            with pytest.raises(Exception, match="'loose' is strict, "):
                await backend.invoke(agent, "?")
    assert server.received == []
