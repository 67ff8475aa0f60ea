"""The context of a run: who is given it, what is recorded of it, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    AgentInput,
    Context,
    DefinitionError,
    Event,
    FunctionRef,
    SerializationError,
    ToolContext,
    create_agent_loop,
    delegate,
    delegate_async,
    function,
    tool,
)
from durably.core.agent import start_event
from durably.core.result import AgentResult
from durably.testing import ScriptedModel, call


class Customer(BaseModel):
    name: str
    note: str | None
    born: date = date(1990, 1, 31)


class VIP(Customer):
    line: int = 1


@dataclass
class Order:
    number: int


ANN = Customer(name="Ann", note=None)
heard: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    heard.clear()


@tool
async def greet(greeting: str, ctx: ToolContext[Customer]) -> str:
    """Greet the customer."""
    heard.append(ctx)
    return f"{greeting}, {ctx.context.name}"


@tool
def greet_in_a_thread(ctx: ToolContext[Customer], greeting: str = "Hi") -> str:
    """Greet the customer."""
    heard.append(ctx)
    return f"{greeting}, {ctx.context.name}"


def instructions(ctx: ToolContext[Customer]) -> str:
    return f"You serve {ctx.context.name} in {ctx.session_key}."


def greeter(*script: Any, **options: Any) -> Agent[None, Customer]:
    model = ScriptedModel(*(script or (call("greet", greeting="Hello"), "Done.")))
    given: dict[str, Any] = {"instructions": instructions, "tools": [greet], **options}
    return Agent("greeter", model=model, context_type=Customer, **given)


def requests(agent: Agent[Any, Any]) -> list[Any]:
    model = agent.model
    assert isinstance(model, ScriptedModel)
    return model.requests


@pytest.mark.asyncio
async def test_tools_and_instructions_get_it_and_the_model_does_not_see_it() -> None:
    script = (call("greet", greeting="Hello"), call("greet_in_a_thread"), "Done.")
    agent = greeter(*script, tools=[greet, greet_in_a_thread])
    async with MemoryBackend([agent], resources={"desk": "a desk"}) as backend:
        run = await backend.start(agent, AgentInput(message="Hi", session_key="s", context=ANN))
        result = await run.result()
        text = (await run.history()).to_jsonl()
    assert [each.content for each in result.messages if each.role == "tool"] == ["Hello, Ann", "Hi, Ann"]
    assert [(each.context, each.run_id, each.session_key) for each in heard] == [(ANN, run.id, "s")] * 2
    assert heard[0].resources["desk"] == "a desk"
    assert "a desk" not in text
    request = requests(agent)[0]
    assert request.system == "You serve Ann in s."
    assert [list(each.parameters["properties"]) for each in request.tools] == [["greeting"], ["greeting"]]
    assert text.count("1990-01-31") == 1, "the run's input holds it, and nothing else"


@pytest.mark.asyncio
async def test_an_event_brings_it_and_it_is_judged_once() -> None:
    agent = greeter()
    async with MemoryBackend([agent]) as backend:
        data = {"message": "Hi", "context": {"name": "Ann", "note": "x", "born": "2000-01-31"}}
        await backend.send(Event(start_event("greeter"), data))
        await backend.drain()
        (run,) = await backend.runs(function=agent)
        assert (await run.result()).text == "Done."
    assert heard[0].context == Customer(name="Ann", note="x", born=date(2000, 1, 31))


@pytest.mark.asyncio
async def test_a_run_without_one_is_refused_unless_the_type_takes_none() -> None:
    optional = Agent("optional", model=ScriptedModel("Done."), instructions="", context_type=Customer | None)
    required = greeter()
    async with MemoryBackend([required, optional]) as backend:
        with pytest.raises(SerializationError, match="context: Field required"):
            await backend.start(required, "Hi")
        wrong: Any = AgentInput(message="Hi", context={"named": "Ann"})
        with pytest.raises(SerializationError, match=r"input of 'greeter'.*name"):
            await backend.start(required, wrong)
        run = await backend.start(optional, "Hi")
        assert (await run.result()).text == "Done."
        assert "context" not in (await run.history()).records[0].to_json()


@pytest.mark.asyncio
async def test_a_function_hands_it_to_the_loop() -> None:
    agent = greeter()

    @function("answer")
    async def answer(ctx: Context[str]) -> AgentResult:
        run_loop = create_agent_loop(agent, ctx.input, context=ANN, session_key="own")
        return await run_loop(ctx.step, ctx.logger)

    async with MemoryBackend([answer]) as backend:
        await backend.invoke(answer, "Hi")
    assert heard[0].context == ANN
    assert requests(agent)[0].system == "You serve Ann in own."


@pytest.mark.asyncio
@pytest.mark.parametrize("made", [delegate, partial(delegate, pass_context=True), delegate_async])
async def test_a_delegate_gets_it(made: Any) -> None:
    expert = greeter()
    (made_tool,) = tools = [made(expert)]
    boss = Agent(
        "boss",
        model=ScriptedModel(call(made_tool.name, task="Greet."), "Done."),
        instructions="",
        tools=tools,
        context_type=VIP,
    )
    async with MemoryBackend([boss]) as backend:
        vip = VIP(name="Ann", note=None, line=7)
        await backend.invoke(boss, AgentInput(message="Hi", context=vip))
        await backend.drain()
    assert heard[0].context == ANN, "of the type of the delegate, who knows nothing of a line"


@pytest.mark.asyncio
@pytest.mark.parametrize("passed", [True, False])
async def test_a_delegate_that_is_named_by_its_id_gets_it_unless_told_otherwise(passed: bool) -> None:
    expert = Agent("expert", model=ScriptedModel("Yes."), instructions=_named, context_type=Customer | None)
    boss = Agent(
        "boss",
        model=ScriptedModel(call("ask_expert", task="Hm?"), "Done."),
        instructions="",
        tools=[delegate("expert", max_depth=1, pass_context=passed)],
        context_type=Customer,
    )
    async with MemoryBackend([boss, expert]) as backend:
        result = await backend.invoke(boss, AgentInput(message="Hi", context=ANN))
    assert [each.content for each in result.messages if each.role == "tool"] == ["Yes."]
    assert requests(expert)[0].system == ("Ann" if passed else "nobody")


def _named(ctx: ToolContext[Customer | None]) -> str:
    return ctx.context.name if ctx.context else "nobody"


@pytest.mark.asyncio
async def test_without_a_context_type_it_is_json_and_travels_on() -> None:
    @tool
    async def look(ctx: ToolContext) -> str:
        """Look."""
        heard.append(ctx.context)
        return "seen"

    inner = Agent("inner", model=ScriptedModel(call("look"), "Done."), instructions="", tools=[look])
    outer = Agent(
        "outer", model=ScriptedModel(call("ask_inner", task="x"), "Done."), instructions="", tools=[delegate(inner)]
    )
    async with MemoryBackend([outer]) as backend:
        await backend.invoke(outer, AgentInput(message="Hi", context={"name": "Ann"}))
        by_id = FunctionRef[Any, Any]("outer", input_type=AgentInput)
        await backend.invoke(by_id, AgentInput(message="Hi"))
    assert heard == [{"name": "Ann"}, None]


@tool
async def two(a: ToolContext[Any], b: str) -> str:
    """Two."""
    return b


def _wrong() -> list[tuple[str, Any]]:
    boss: Any = partial(Agent, "boss", model="anthropic:x", instructions="")
    return [
        ("its tool 'greet' asks for ToolContext.Customer., and the agent has none", partial(boss, tools=[greet])),
        (
            "its tool 'greet' asks for ToolContext.Customer., and the agent has context_type=Order",
            partial(boss, tools=[greet], context_type=Order),
        ),
        (
            "its instructions asks for ToolContext.Customer.",
            partial(Agent, "boss", model="anthropic:x", instructions=instructions),
        ),
        (
            "its instructions take no argument, or one that is annotated",
            partial(Agent, "boss", model="anthropic:x", instructions=lambda x: x),
        ),
        ("'greeter' has context_type=Customer, and the agent", partial(boss, tools=[delegate(greeter())])),
        (
            "'greeter' needs a context: leave out pass_context=False",
            partial(boss, tools=[delegate(greeter(), pass_context=False)], context_type=Customer),
        ),
        ("are both a ToolContext", partial(tool, _both)),
        ("takes 'ctx', which is no parameter", partial(tool, _judged, requires_approval=lambda ctx: True)),
    ]


async def _both(a: ToolContext[Any], b: ToolContext[Any]) -> str:
    return ""


async def _judged(amount: int, ctx: ToolContext[Any]) -> str:
    return ""


@pytest.mark.parametrize(("sentence", "define"), _wrong(), ids=lambda each: each if isinstance(each, str) else "")
def test_what_cannot_work_is_refused_where_it_is_defined(sentence: str, define: Any) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        define()
