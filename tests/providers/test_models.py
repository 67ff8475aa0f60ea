"""How models are named, keyed, swapped, listened to and paid for."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import logging
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, Field, SecretStr

from durably.backends import MemoryBackend
from durably.core import Agent, DefinitionError, ModelError, tool, user
from durably.core.errors import ContextWindowExceededError
from durably.core.messages import AssistantMessage, TextPart, ThinkingPart, ToolCall, ToolResultMessage
from durably.core.model import Delta, ModelRequest, ModelResponse, StreamedDelta, StreamingModel, Usage, resolve_model
from durably.providers import FallbackModel, Key
from durably.providers.anthropic import AnthropicModel
from durably.providers.failures import retry_delay
from durably.providers.litellm import LiteLLMModel
from durably.providers.openai import OpenAIModel
from durably.providers.prices import price
from durably.providers.schemas import strict_schema
from durably.testing import ScriptedModel, call
from durably.testing.models.llm_server import Fault, LLMServer
from durably.testing.models.wire.strict_schema import check_strict
from tests.providers.cases import ANTHROPIC, CASES, Case, ask, question
from tests.test_layout import imports

SECRET = "sk-secret-of-the-test-0123456789"


KEY_FAULTS = {
    "named": Fault.answer(401, message=f"the key {SECRET} is not known"),
    "cut": Fault.cut(),
}

# -- names and keys


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("anthropic:claude-opus-4-6", AnthropicModel),
        ("openai:gpt-5", OpenAIModel),
        ("litellm:gemini/gemini-2.5-pro", LiteLLMModel),
    ],
)
def test_a_string_names_a_model(name: str, kind: type) -> None:
    model = Agent("a", model=name, instructions="").model
    assert isinstance(model, kind)
    assert model.name == name


@pytest.mark.parametrize(("module", "sdk"), [("anthropic", "anthropic"), ("openai", "openai"), ("litellm", "litellm")])
def test_a_missing_extra_is_named(module: str, sdk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"durably.providers.{module}")
    monkeypatch.setitem(sys.modules, sdk, None)  # this is how Python marks what is not there
    with pytest.raises(ImportError, match=rf"pip install 'durably\[{module}\]'"):
        importlib.import_module(f"durably.providers.{module}")


@pytest.mark.parametrize("module", ["anthropic", "openai", "litellm"])
def test_an_extra_brings_all_that_its_module_imports(module: str) -> None:
    known = installed_by(f"durably[{module}]")
    source = Path(importlib.import_module(f"durably.providers.{module}").__file__ or "").read_text()
    imported = {name.split(".")[0] for name in imports(ast.parse(source))} - {"durably", *sys.stdlib_module_names}
    names = packages_distributions()
    missing = {each for each in imported if not known & {canonicalize_name(name) for name in names[each]}}
    assert not missing


def installed_by(wanted: str) -> set[str]:
    """The distributions that come with a requirement, in their canonical names."""
    found: set[str] = set()
    queue = [Requirement(wanted)]
    seen: set[str] = set()
    while queue:
        asked = queue.pop()
        if str(asked) in seen:
            continue
        seen.add(str(asked))
        found.add(canonicalize_name(asked.name))
        for line in requires(asked.name) or ():
            requirement = Requirement(line)
            extras = ["", *asked.extras]
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in extras):
                queue.append(requirement)
    return found


@pytest.mark.asyncio
async def test_litellm_finds_its_own_key_and_errors_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    async with LLMServer("never", faults=[Fault.answer(401, message=f"bad key {SECRET}")]) as server:
        with pytest.raises(ModelError, match="bad key") as raised:
            await LiteLLMModel("openai/gpt-5", base_url=server.openai_url).complete(question(user("?")))
    assert server.received[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(raised.value)


def test_a_key_has_one_place() -> None:
    with pytest.raises(DefinitionError):
        Key()
    with pytest.raises(DefinitionError):
        Key(env="A", resource="b")


@pytest.mark.asyncio
@pytest.mark.parametrize("place", [Key(resource="key"), Key(env="SECRET_OF_THE_TEST")], ids=["resource", "env"])
@pytest.mark.parametrize("fault", KEY_FAULTS.values(), ids=KEY_FAULTS.keys())
async def test_a_key_reaches_no_record_no_log_and_no_error(
    case: Case, place: Key, fault: Fault, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TEST", SECRET)
    caplog.set_level(logging.DEBUG)
    async with LLMServer("It is sunny.") as server:
        server.fail(*[fault] * 4)
        shown: list[StreamedDelta] = []
        agent = Agent("a", model=case.make(server, place, 30.0), instructions="", sink=shown.append)
        assert SECRET not in repr(agent.model)
        async with MemoryBackend([agent], resources={"key": SecretStr(SECRET)}) as backend:
            run = await backend.start(agent, "hello")
            with pytest.raises(Exception, match=r"step 'think' failed") as raised:
                await run.result()
            history = await run.history()
            with pytest.raises(ModelError) as direct:
                await direct_call(case.make(server, Key(env="SECRET_OF_THE_TEST"), 30.0), server, fault)
    assert all(any(SECRET in value for value in each.headers.values()) for each in server.received)
    written = [caplog.text, *(record.to_json() for record in history.records), *(repr(delta) for delta in shown)]
    for error in (*chain(raised.value), *chain(direct.value)):
        written += [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
    assert [each for each in written if SECRET in each] == []


async def direct_call(model: StreamingModel, server: LLMServer, fault: Fault) -> None:
    server.fail(fault)
    await ask(model, question(user("?")), True)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it leads to, said or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.asyncio
async def test_a_resource_is_missing_or_out_of_reach(case: Case) -> None:
    async with LLMServer("never") as server:
        model = case.make(server, Key(resource="key"), 30.0)
        with pytest.raises(ModelError, match="inside a step"):
            await model.complete(question(user("?")))
        agent = Agent("a", model=model, instructions="")
        async with MemoryBackend([agent]) as backend:
            with pytest.raises(Exception, match="resources="):
                await backend.invoke(agent, "hello")


@pytest.mark.asyncio
async def test_a_server_may_want_no_key() -> None:
    async with LLMServer("hello") as server:
        model = OpenAIModel("llama", key=None, base_url=server.openai_url)
        assert (await model.complete(question(user("?")))).message.text == "hello"


# -- swapping


@pytest.mark.asyncio
@pytest.mark.parametrize("first", CASES, ids=lambda case: case.id)
async def test_a_conversation_goes_on_with_another_provider(first: Case, case: Case) -> None:
    async with LLMServer([call("weather", city="Köln"), call("weather", city="Bonn")], "Sunny.") as server:
        asked, _ = await ask(first.model(server), question(user("Weather?")), False)
        results = [
            ToolResultMessage(call_id=each.id, name=each.name, content="sunny") for each in asked.message.tool_calls
        ]
        request = question(user("Weather?"), asked.message, *results)
        answered, _ = await ask(case.model(server), request, False)
    assert answered.message.text == "Sunny."


@pytest.mark.asyncio
@pytest.mark.parametrize("first", CASES, ids=lambda case: case.id)
async def test_a_run_goes_on_with_another_provider_after_a_crash(first: Case, case: Case) -> None:
    @tool
    async def weather(city: str) -> str:
        """The weather."""
        return "sunny"

    thought = ThinkingPart(text="hm", signature="s")
    asked = ToolCall(id="c1", name="weather", arguments={"city": "Köln"})
    thinking = ModelResponse(
        message=AssistantMessage(parts=[thought, TextPart(text="Let me see."), asked]), stop_reason="tool_calls"
    )
    async with LLMServer(thinking, "Sunny.") as server:

        def agent(on: Case) -> Agent:
            return Agent("a", model=on.model(server), instructions="", tools=[weather], retries=0)

        server.fail(None, Fault.hang())
        backend = MemoryBackend([agent(first)])
        async with backend:
            run = await backend.start("a", {"message": "Weather?"}, run_id="r")
            while len(server.received) < 2:  # noqa: ASYNC110  # the server has no event for it
                await asyncio.sleep(0.005)
            backend.crash(KeyboardInterrupt())
        async with MemoryBackend([agent(case)], journal=backend.journal) as after:
            result = await (await after.run(run.id)).result()
    assert result.text == "Sunny."
    assert [message.role for message in server.requests[-1].messages] == ["user", "assistant", "tool"]


# -- falling back


class Failing:
    """A model that shows a piece of an answer and fails."""

    name = "failing:x"

    def __init__(self, error: ModelError) -> None:
        self.error = error

    async def complete(self, request: ModelRequest) -> ModelResponse:
        raise self.error

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        yield Delta(kind="text", text="Hal")
        raise self.error


def error(**fields: object) -> ModelError:
    return ModelError("down", **{"provider": "p", "model": "m", **fields})  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_fallback_asks_the_next_and_marks_its_pieces() -> None:
    async with LLMServer("Hello") as server:
        model = FallbackModel(Failing(error(retriable=True)), ANTHROPIC.model(server))
        response, deltas = await ask(model, question(user("?")), True)
        assert response.message.text == "Hello"
        assert [(delta.answer, delta.text) for delta in deltas] == [(0, "Hal"), (1, "Hello")]
        assert (await model.complete(question(user("?")))).message.text == "Hello"
        assert model.name == "fallback:failing:x|anthropic:claude-opus-4-6"


@pytest.mark.asyncio
async def test_fallback_says_what_all_of_them_said(streamed: bool) -> None:
    soon, later, never = (
        error(retriable=True, retry_after=3.0),
        error(retriable=True, retry_after=9.0),
        error(status=400),
    )
    with pytest.raises(ModelError) as raised:
        await ask(FallbackModel(Failing(never), Failing(later), Failing(soon)), question(user("?")), streamed)
    assert raised.value.retriable
    assert raised.value.retry_after == 3.0
    with pytest.raises(ModelError) as raised:
        await ask(FallbackModel(Failing(later), Failing(error(retriable=True))), question(user("?")), streamed)
    assert raised.value.retry_after is None
    too_long = ContextWindowExceededError("long", provider="p", model="m")
    with pytest.raises(ContextWindowExceededError):
        await ask(FallbackModel(Failing(too_long), Failing(too_long)), question(user("?")), streamed)
    picky = FallbackModel(Failing(never), ScriptedModel("x"), when=lambda error: error.retriable)
    with pytest.raises(ModelError, match="down") as raised:
        await ask(picky, question(user("?")), streamed)
    assert raised.value.status == 400


def test_fallback_needs_two() -> None:
    with pytest.raises(DefinitionError):
        FallbackModel("anthropic:claude-opus-4-6")


# -- listening


@pytest.mark.asyncio
async def test_a_listener_can_tell_a_retried_answer(case: Case) -> None:
    heard: list[StreamedDelta] = []

    async def sink(delta: StreamedDelta) -> None:
        heard.append(delta)

    text = "It is sunny in all of Germany today."
    async with LLMServer(text, faults=[Fault.cut(after=3)]) as server:
        agent = Agent("a", model=case.model(server), instructions="", sink="listener")
        async with MemoryBackend([agent], resources={"listener": sink}) as backend:
            run = await backend.start(agent, "Weather?")
            result = await run.result()
            history = await run.history()
    assert result.text == text
    assert "".join(each.delta.text for each in heard if each.attempt == 2) == text
    assert {each.attempt for each in heard} <= {1, 2}
    assert [each.offset for each in heard if each.attempt == 2] == list(range(sum(each.attempt == 2 for each in heard)))
    thinking = [record for record in history.records if record.key == "think"]
    assert [record.status for record in thinking] == ["retrying", "completed"]


@pytest.mark.asyncio
async def test_a_listener_that_fails_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def sink(delta: StreamedDelta) -> None:
        raise OSError("nobody there")

    async with LLMServer("Hello") as server:
        agent = Agent("a", model=ANTHROPIC.model(server), instructions="", sink=sink)
        async with MemoryBackend([agent]) as backend:
            assert (await backend.invoke(agent, "?")).text == "Hello"
    assert "nobody there" in caplog.text


# -- prices, waits, schemas


def test_prices() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=500)
    known = price(usage, "claude-opus-4-6", provider="anthropic")
    assert known is not None
    assert (
        0 < known < (price(Usage(input_tokens=1000, output_tokens=100), "claude-opus-4-6", provider="anthropic") or 0)
    )
    assert price(usage, "no-such-model", provider="openai") is None
    assert price(usage, "gpt-5", url="http://127.0.0.1:1/v1") is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"x-ratelimit-reset-requests": "6m0.5s", "x-ratelimit-remaining-requests": "0"}, 360.5),
        ({"x-ratelimit-reset-tokens": "20ms", "x-ratelimit-remaining-tokens": "12"}, None),
        (
            {
                "anthropic-ratelimit-tokens-reset": "2026-01-01T00:01:00Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-01T01:00:00Z",
                "anthropic-ratelimit-requests-remaining": "3",
            },
            60.0,
        ),
    ],
)
def test_waits(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_delay(headers, now=1767225600.0) == seconds


class Inner(BaseModel):
    """A part."""

    value: int = 1


class Outer(BaseModel):
    parts: list[Inner] = Field(min_length=1)
    one: Inner | None = None
    kind: str = "x"


def test_strict_schemas() -> None:
    made = strict_schema(Outer.model_json_schema())
    assert made is not None
    assert made["required"] == ["parts", "one", "kind"]
    assert made["$defs"]["Inner"]["additionalProperties"] is False
    assert "default" not in json.dumps(made)
    assert made["properties"]["parts"]["description"] == "minItems: 1"
    check_strict(made, "schema")
    assert strict_schema({"type": "array", "items": {}}) is None
    assert strict_schema({"type": "object", "additionalProperties": {"type": "string"}}) is None


def test_the_package_imports_no_sdk() -> None:
    source = Path(__file__).parents[2] / "providers/durably/providers/__init__.py"
    assert "import anthropic" not in source.read_text()
    assert resolve_model("anthropic:x").name == "anthropic:x"
