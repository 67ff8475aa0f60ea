"""The agent loop: think, act, observe."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    AgentInput,
    AgentResult,
    Context,
    InvokeError,
    MemorySessions,
    ToolError,
    assistant,
    create_agent_loop,
    function,
    tool,
    user,
)
from durably.core.backend import Backend
from durably.core.messages import AssistantMessage, RefusalPart, ToolResultMessage, UserMessage
from durably.core.model import ModelRequest, ModelResponse, Usage
from durably.testing import ScriptedModel, call
from tests.conftest import Open

pytestmark = pytest.mark.asyncio


async def ask(backend: Backend, agent: Agent, message: Any = "go") -> AgentResult:
    async with backend:
        return await backend.invoke(agent, message)


def results_of(result: AgentResult) -> list[ToolResultMessage]:
    return [message for message in result.messages if isinstance(message, ToolResultMessage)]


@tool
async def get_order(order_id: str) -> str:
    """Look up one order."""
    return f"order {order_id}: sent"


@tool
def fail(kind: str) -> str:
    if kind == "tool":
        raise ToolError("no such thing")
    raise ConnectionError("down")


async def test_text_ends_the_loop(open_backend: Open) -> None:
    agent = Agent("a", model=ScriptedModel("hello"), instructions="be nice")
    result = await ask(open_backend([agent]), agent)
    assert (result.text, result.iterations, result.stop_reason, result.tool_calls) == ("hello", 1, "completed", 0)
    assert result.messages == [user("go"), assistant("hello")]


async def test_what_was_asked_stays_as_it_was_asked() -> None:
    model = ScriptedModel(call("get_order", order_id="7"), "done")
    agent = Agent("a", model=model, instructions="be nice", tools=[get_order])
    await ask(MemoryBackend([agent]), agent)
    assert [len(request.messages) for request in model.requests] == [1, 3]


async def test_a_tool_is_called_and_its_result_goes_back(open_backend: Open) -> None:
    model = ScriptedModel(call("get_order", order_id="7"), "It ships today.")
    agent = Agent("a", model=model, instructions="", tools=[get_order])
    async with open_backend([agent]) as backend:
        run = await backend.start(agent, "Where is order 7?")
        result = await run.result()
        history = await run.history()
    assert [step.key for step in history.steps()] == [
        "load-context",
        "load-history",
        "think",
        "tool-get_order",
        "think:1",
    ]
    assert results_of(result) == [ToolResultMessage(call_id="call_0_0", name="get_order", content="order 7: sent")]
    assert result.usage == Usage(input_tokens=20, output_tokens=10)
    model.assert_used_up()


async def test_calls_of_one_turn_run_at_the_same_time_and_answer_in_order(open_backend: Open) -> None:
    both = asyncio.Barrier(2)

    @tool
    async def meet(name: str) -> str:
        await both.wait()  # neither ends before the other has begun
        return name

    model = ScriptedModel([call("meet", name="first"), call("meet", name="second")], "done")
    agent = Agent("a", model=model, instructions="", tools=[meet])
    result = await ask(open_backend([agent]), agent)
    assert [each.content for each in results_of(result)] == ["first", "second"]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (call("nothing"), "there is no tool 'nothing'; the tools are: get_order, fail"),
        (call("get_order"), "invalid arguments for get_order: order_id: Field required"),
        (call("get_order", order_id="7", extra=1), "extra: Extra inputs are not permitted"),
        (call("fail", kind="tool"), "no such thing"),
    ],
)
async def test_what_goes_back_to_the_model_as_an_error(open_backend: Open, asked: Any, answer: str) -> None:
    agent = Agent("a", model=ScriptedModel(asked, "I see."), instructions="", tools=[get_order, fail])
    async with open_backend([agent]) as backend:
        run = await backend.start(agent, "go")
        (result,) = results_of(await run.result())
        steps = [step.key for step in (await run.history()).steps() if step.key.startswith("tool-")]
    assert result.is_error
    assert answer in str(result.content)
    assert steps == (["tool-fail"] if asked.name == "fail" else [])  # a bad call runs nothing


async def test_a_tool_that_keeps_failing_is_reported_after_its_retries() -> None:
    agent = Agent(
        "a", model=ScriptedModel(call("fail", kind="net"), "I see."), instructions="", tools=[fail], retries=2
    )
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, "go")
        (result,) = results_of(await run.result())
        failed = [record.attempt for record in await run.history() if record.key == "tool-fail"]
    assert result.is_error
    assert result.content == "step 'tool-fail' failed after 3 attempts: ConnectionError: down"
    assert failed == [1, 2, 3]


async def test_a_tool_may_choose_to_raise() -> None:
    strict = tool(on_error="raise", retries=0)(fail.fn)
    agent = Agent("a", model=ScriptedModel(call("fail", kind="net"), "never"), instructions="", tools=[strict])
    with pytest.raises(InvokeError, match="ConnectionError: down"):
        await ask(MemoryBackend([agent]), agent)


async def test_the_limit_of_iterations_has_a_reason_and_a_warning() -> None:
    asked: list[tuple[str, str]] = []

    def forever(request: ModelRequest) -> Any:
        asked.append((request.system, request.reminder))
        return call("get_order", order_id="7")

    agent = Agent("a", model=ScriptedModel(forever), instructions="Help.", tools=[get_order], max_iterations=4)
    result = await ask(MemoryBackend([agent]), agent)
    assert (result.stop_reason, result.iterations, result.tool_calls) == ("max_iterations", 4, 4)
    assert {system for system, _ in asked} == {"Help."}, "what stands before the newest message never changes"
    told = ["", "", "You have 2 turns left", "You have 1 turn left"]
    assert [reminder.split(",")[0] for _, reminder in asked] == told


async def test_a_refusal_is_a_reason() -> None:
    refusal = ModelResponse(message=AssistantMessage(parts=[RefusalPart(text="No.")]), stop_reason="refusal")
    agent = Agent("a", model=ScriptedModel(refusal), instructions="")
    assert (await ask(MemoryBackend([agent]), agent)).stop_reason == "refused"


async def test_an_answer_that_was_cut_off_is_not_taken_for_whole() -> None:
    cut = ModelResponse(message=assistant("It ships on"), stop_reason="max_tokens")
    agent = Agent("a", model=ScriptedModel(cut), instructions="")
    result = await ask(MemoryBackend([agent]), agent)
    assert (result.text, result.stop_reason) == ("It ships on", "max_tokens")


async def test_a_pause_goes_on() -> None:
    pause = ModelResponse(message=assistant("still thinking"), stop_reason="pause")
    agent = Agent("a", model=ScriptedModel(pause, "done"), instructions="")
    result = await ask(MemoryBackend([agent]), agent)
    assert (result.text, result.iterations) == ("done", 2)


class Verdict(BaseModel):
    ok: bool


async def test_a_typed_answer_is_parsed_and_a_bad_one_sent_back(open_backend: Open) -> None:
    agent = Agent("a", model=ScriptedModel("yes!", '{"ok": true}'), instructions="", output_type=Verdict)
    result = await ask(open_backend([agent]), agent)
    assert result.iterations == 2
    assert result.output == Verdict(ok=True)


async def test_instructions_may_be_computed_once(open_backend: Open) -> None:
    made: list[int] = []

    async def instructions() -> str:
        made.append(1)
        return "fresh"

    model = ScriptedModel(call("get_order", order_id="7"), "done")
    agent = Agent("a", model=model, instructions=instructions, tools=[get_order])
    await ask(open_backend([agent]), agent)
    assert made == [1]
    assert [request.system for request in model.requests] == ["fresh", "fresh"]


async def test_a_session_remembers(open_backend: Open) -> None:
    sessions = MemorySessions()
    agent = Agent("a", model=ScriptedModel("hello Ann", "your name is Ann"), instructions="", sessions=sessions)
    async with open_backend([agent]) as backend:
        await backend.invoke(agent, AgentInput(message="I am Ann", session_key="s"))
        second = await backend.invoke(agent, AgentInput(message="Who am I?", session_key="s"))
    assert second.text == "your name is Ann"
    said = [message.content for message in await sessions.load("s") if isinstance(message, UserMessage)]
    assert said == ["I am Ann", "Who am I?"]


async def test_a_message_that_was_saved_before_the_loop_is_not_said_twice() -> None:
    sessions = MemorySessions()
    model = ScriptedModel("hello")
    agent = Agent("a", model=model, instructions="", sessions=sessions)

    @function("handle")
    async def handle(ctx: Context[str]) -> AgentResult:
        async def save() -> None:
            await sessions.append("s", [user(ctx.input)], key="in")

        await ctx.step.run("save-incoming", save)
        return await create_agent_loop(agent, ctx.input, session_key="s")(ctx.step, ctx.logger)

    async with MemoryBackend([handle]) as backend:
        await backend.invoke(handle, "hi")
    assert list(model.requests[0].messages[:1]) == [user("hi")]
    assert sum(isinstance(message, UserMessage) for message in model.requests[0].messages) == 1


async def test_the_conversation_is_not_stored_again_with_the_result() -> None:
    agent = Agent("a", model=ScriptedModel(call("get_order", order_id="7"), "done"), instructions="", tools=[get_order])
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, "go")
        result = await run.result()
        history = await run.history()
    assert "order 7" not in str(history[-1].output)
    assert len(result.messages) == 4
