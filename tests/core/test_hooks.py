"""Hooks: asked before and after each call of a model and a tool, once, whatever crashes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, DefinitionError, Hooks, InvokeError, Refusal, assistant, current_step, tool
from durably.core.messages import Message, ToolCall, ToolResultMessage
from durably.core.model import ModelResponse, Usage
from durably.core.tools import ToolOutcome
from durably.testing import ScriptedModel, call, crash_matrix


class Watch(Hooks):
    """Notes each call."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def before_model(self, messages: Sequence[Message]) -> None:
        self.seen.append(f"before model, {len(messages)}")

    def after_model(self, response: ModelResponse) -> None:
        self.seen.append(f"after model, {response.message.text or 'calls'}")

    async def before_tool(self, call: ToolCall) -> None:
        self.seen.append(f"before {call.name}")

    def after_tool(self, call: ToolCall, outcome: str | ToolOutcome) -> None:
        self.seen.append(f"after {call.name}: {outcome}")


class Quiet(Watch):
    in_steps = False

    before_model = Hooks.before_model
    before_tool = Hooks.before_tool


@tool
def look(place: str) -> str:
    """Look at a place."""
    return f"nothing in {place}"


def agent_of(hooks: Sequence[Hooks], *answers: Any, **options: Any) -> tuple[Agent, ScriptedModel]:
    model = ScriptedModel(*answers)
    return Agent("a", model=model, instructions="", tools=[look], hooks=hooks, retries=0, **options), model


@pytest.mark.asyncio
async def test_each_call_is_shown_before_and_after() -> None:
    seen: list[str] = []
    agent, _ = agent_of([Watch(seen)], call("look", place="Rome"), "It is not there.")
    async with MemoryBackend([agent], evict="always") as backend:
        run = await backend.start(agent, "Where is it?")
        await run.result()
        keys = [record.key for record in (await run.history()).steps()]
    assert seen == [
        "before model, 1",
        "after model, calls",
        "before look",
        "after look: nothing in Rome",
        "before model, 3",
        "after model, It is not there.",
    ]
    assert keys == [
        "load-context",
        "load-history",
        "before-think",
        "think",
        "after-think",
        "before-tool-look",
        "tool-look",
        "after-tool-look",
        "before-think:1",
        "think:1",
        "after-think:1",
    ]


@pytest.mark.asyncio
async def test_a_hook_outside_steps_leaves_no_record_and_what_is_not_written_is_not_asked() -> None:
    seen: list[str] = []
    agent, _ = agent_of([Quiet(seen), Hooks()], call("look", place="Rome"), "It is not there.")
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, "Where is it?")
        await run.result()
        keys = [record.key for record in (await run.history()).steps()]
    assert keys == ["load-context", "load-history", "think", "tool-look", "think:1"]
    assert seen == ["after model, calls", "after look: nothing in Rome", "after model, It is not there."]


class Change(Hooks):
    """Puts something else in the place of all it sees."""

    def after_model(self, response: ModelResponse) -> ModelResponse | None:
        if response.message.tool_calls:
            return None
        return ModelResponse(message=assistant(response.message.text.replace("secret", "***")))

    def before_tool(self, call: ToolCall) -> ToolCall:
        return ToolCall(id="else", name="else", arguments={"place": "Paris"})

    def after_tool(self, call: ToolCall, outcome: str | ToolOutcome) -> str:
        return f"{outcome}, said the hook"


class ChangeInPlace(Change):
    in_steps = False


@pytest.mark.parametrize("hooks", [Change(), ChangeInPlace()], ids=["in steps", "in place"])
@pytest.mark.asyncio
async def test_a_hook_may_put_something_else_in_the_place_of_what_it_sees(hooks: Hooks) -> None:
    agent, model = agent_of([hooks], call("look", place="Rome"), "It is a secret.")
    async with MemoryBackend([agent]) as backend:
        result = await backend.invoke(agent, "Where is it?")
        again = await (await backend.run((await backend.runs())[0].id)).result()
    assert result.text == again.text == "It is a ***."
    assert result.usage == Usage(input_tokens=20, output_tokens=10), "what was spent stays"
    (told,) = [message for message in model.requests[1].messages if isinstance(message, ToolResultMessage)]
    assert told.content == "nothing in Paris, said the hook"
    (asked,) = [each for message in result.messages if message.role == "assistant" for each in message.tool_calls]
    assert asked.arguments == {"place": "Rome"}, "what the model said is kept as it was"


@pytest.mark.asyncio
async def test_a_typed_answer_is_judged_after_the_hook() -> None:
    class Number(Hooks):
        def after_model(self, response: ModelResponse) -> ModelResponse:
            return response.model_copy(update={"message": assistant("2")})

    agent, _ = agent_of([Number()], "1", output_type=int)
    async with MemoryBackend([agent]) as backend:
        assert (await backend.invoke(agent, "How many?")).output == 2


class Guard(Hooks):
    """Refuses at one point."""

    def __init__(self, point: str) -> None:
        self.point = point

    def _verdict(self, point: str) -> Refusal | None:
        return Refusal(reason=f"not {point}") if point == self.point else None

    def before_model(self, messages: Sequence[Message]) -> Refusal | None:
        return self._verdict("before_model")

    def after_model(self, response: ModelResponse) -> Refusal | None:
        return self._verdict("after_model")

    def before_tool(self, call: ToolCall) -> Refusal | None:
        return self._verdict("before_tool")

    def after_tool(self, call: ToolCall, outcome: str | ToolOutcome) -> Refusal | None:
        return self._verdict("after_tool")


class GuardInPlace(Guard):
    in_steps = False


@pytest.mark.parametrize("kind", [Guard, GuardInPlace])
@pytest.mark.asyncio
async def test_a_hook_may_refuse(kind: type[Guard]) -> None:
    for point, requests in (("before_model", 0), ("after_model", 1)):
        agent, model = agent_of([kind(point)], "It is there.")
        async with MemoryBackend([agent]) as backend:
            result = await backend.invoke(agent, "Where is it?")
        assert (result.text, result.stop_reason) == (f"not {point}", "refused")
        assert len(model.requests) == requests
        assert result.usage.input_tokens == 10 * requests
        assert [message.role for message in result.messages] == ["user", "assistant"]
    for point in ("before_tool", "after_tool"):
        agent, model = agent_of([kind(point)], call("look", place="Rome"), "I may not look.")
        async with MemoryBackend([agent]) as backend:
            result = await backend.invoke(agent, "Where is it?")
        told = model.requests[1].messages[-1]
        assert isinstance(told, ToolResultMessage)
        assert (told.content, told.is_error) == (f"not {point}", True)
        assert result.stop_reason == "completed"


@pytest.mark.asyncio
async def test_a_hook_that_fails_fails_the_run() -> None:
    class Broken(Hooks):
        def before_tool(self, call: ToolCall) -> None:
            raise ValueError("the service for guards is down")

    class Wrong(Hooks):
        in_steps = False

        def before_tool(self, call: ToolCall) -> bool:
            return True

    for hooks, complaint in ((Broken(), "guards is down"), (Wrong(), r"Wrong\.before_tool must return")):
        agent, _ = agent_of([hooks], call("look", place="Rome"), "It is there.")
        async with MemoryBackend([agent]) as backend:
            with pytest.raises(InvokeError, match=complaint):
                await backend.invoke(agent, "Where is it?")


def test_what_is_no_hook_is_refused() -> None:
    class Late(Hooks):
        in_steps = False

        async def before_tool(self, call: ToolCall) -> None:
            pass

    with pytest.raises(DefinitionError, match=r"hooks= is a list of objects of your own class\(Hooks\)"):
        agent_of([print])  # type: ignore[list-item]
    with pytest.raises(DefinitionError, match=r"Late\.before_tool is async, and in_steps is False"):
        agent_of([Late()])


class Meter(Hooks):
    """Writes what it sees to a table with a unique key, as one's own log or meter would."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table

    def _note(self, text: str) -> None:
        self.table.setdefault(current_step().idempotency_key, text)

    def after_model(self, response: ModelResponse) -> None:
        self._note(response.message.text or "calls")

    def before_tool(self, call: ToolCall) -> Refusal | ToolCall:
        self._note(f"asked for {call.arguments}")
        if call.arguments == {"place": "Rome"}:
            return Refusal(reason="not Rome")
        return call.model_copy(update={"arguments": {"place": "Oslo"}})


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_hooks_are_asked_once_wherever_the_run_crashes(backend: str) -> None:
    def world() -> tuple[Agent, dict[str, str]]:
        table: dict[str, str] = {}
        calls = [call("look", place="Rome"), call("look", place="Bern")]
        return agent_of([Meter(table)], calls, "done")[0], table

    report = await crash_matrix(world, "Where is it?", state=lambda table: sorted(table.values()), backend=backend)
    assert report.ok, report
    keys = [step.key for step in report.steps]
    assert {"gather[0]/before-tool-look", "gather[1]/before-tool-look", "after-think:1"} <= set(keys)
