"""Toolsets: tools that are made for each run, listed once and recorded."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.backends.memory import MemoryJournal
from durably.core import (
    Agent,
    AgentInput,
    Context,
    DefinitionError,
    InvokeError,
    SerializationError,
    Tool,
    ToolContext,
    ToolError,
    Toolset,
    approve,
    delegate,
    function,
    tool,
    toolset,
)
from durably.core.errors import Signal
from durably.core.messages import JSONObject
from durably.core.steps import Point
from durably.core.tool_context import RunContext
from durably.core.toolsets import ListedTool
from durably.testing import ScriptedModel, call, crash_matrix
from tests.conftest import Open

pytestmark = pytest.mark.asyncio


class Shelf:
    """Makes a tool for each thing on it, and counts how often."""

    def __init__(self, *things: str) -> None:
        self.things = list(things)
        self.made = 0

    def tools(self, ctx: ToolContext[str]) -> list[Tool]:
        self.made += 1

        def take(thing: str, count: int) -> str:
            if count > 9:
                raise ToolError("not so many")
            return f"{count} {thing} for {ctx.context}"

        async def ask() -> str:
            """Ask."""
            return "yes"

        taking = [tool(_named(partial(take, each), each), description=f"Take {each}.") for each in self.things]
        return [*taking, tool(ask, requires_approval=True, approval_timeout="1h")]


def _named(fn: Any, thing: str) -> Any:
    def take(count: int) -> str:
        made: str = fn(count=count)
        return made

    take.__name__ = f"take_{thing}"
    return take


@tool
async def look() -> str:
    """Look."""
    return "a shelf"


def clerk(shelf: Shelf, *script: Any) -> Agent:
    model = ScriptedModel(*script, "Done.")
    tools: list[Tool | Toolset] = [look, toolset(shelf.tools, name="shelf")]
    return Agent("clerk", model=model, instructions="", tools=tools, context_type=str)


ASKED = AgentInput[str](message="go", context="Ann")


def told(result: Any) -> list[tuple[Any, bool]]:
    return [(each.content, each.is_error) for each in result.messages if each.role == "tool"]


async def test_the_tools_of_a_run_are_listed_once_and_recorded() -> None:
    shelf = Shelf("cup", "pot")
    agent = clerk(
        shelf, call("take_cup", count=2), [call("take_pot", count=10), call("look")], call("take_pot", count="all")
    )
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, ASKED)
        result = await run.result()
        keys = [record.key for record in (await run.history()).steps()]
        text = (await run.history()).to_jsonl()
    assert told(result)[:3] == [("2 cup for Ann", False), ("not so many", True), ("a shelf", False)]
    assert told(result)[3][0].startswith("invalid arguments for take_pot: count")
    assert keys[:4] == ["load-context", "list-shelf", "load-history", "think"]
    assert shelf.made == 1
    model = agent.model
    assert isinstance(model, ScriptedModel)
    assert [each.name for each in model.requests[0].tools] == ["look", "take_cup", "take_pot", "ask"]
    assert text.count("Take cup.") == 1, "the list is recorded once, and not again at each turn"


async def test_a_person_is_asked_and_answers_in_time_or_not() -> None:
    agent = clerk(Shelf(), call("ask"))
    async with MemoryBackend([agent]) as backend:
        result = await backend.invoke(agent, ASKED)
    assert told(result) == [("ask was not run: it needs a person's approval, and nobody answered in time", True)]


async def pay(to: str, amount: int) -> str:
    """Pay."""
    return f"paid {amount} to {to}"


def payer() -> Agent:
    makes = toolset(lambda: [tool(pay, requires_approval=True)], name="bank")
    return Agent(
        "payer", model=ScriptedModel(call("pay", to="Ann", amount=50), "Done."), instructions="", tools=[makes]
    )


async def test_a_person_may_change_the_arguments(open_backend: Open) -> None:
    agent = payer()
    async with open_backend([agent]) as backend:
        run = await backend.start(agent, "go")
        while not (pending := await backend.approvals(run=run.id)):  # noqa: ASYNC110 - a page would ask again too
            await asyncio.sleep(0.01)
        before = len(await run.history())
        for wrong in ({"to": "Ann"}, {"to": "Ann", "amount": "all"}, {"to": "Ann", "amount": 1, "by": "Bob"}):
            with pytest.raises(SerializationError, match=r"invalid arguments for pay: arguments"):
                await backend.approve(pending[0], arguments=wrong)
        assert len(await run.history()) == before, "what does not fit is no answer"
        await backend.approve(pending[0], arguments={"to": "Ann", "amount": 20})
        result = await run.result()
    assert told(result) == [
        ('A person changed the arguments: pay was run with {"to": "Ann", "amount": 20}\npaid 20 to Ann', False)
    ]


@function("reviewer", triggers=["durably/approval.requested"])
async def reviewer(ctx: Context[Any]) -> None:
    await ctx.step.send_event("answer", approve(ctx.input["approval"], arguments={"to": "Ann", "amount": 20}))


async def test_changed_arguments_are_the_same_wherever_the_run_crashes() -> None:
    report = await crash_matrix(payer, "go", functions=[reviewer])
    assert report.ok, report
    assert not report.error, report


def by_amount(*amounts: object, journal: list[int] | None = None) -> Agent:
    """It pays up to 10 without asking; which amounts were judged is kept."""
    judged = [] if journal is None else journal

    def much(amount: int) -> bool:
        judged.append(amount)
        return amount > 10

    script = [call("pay", to="Ann", amount=amount) for amount in amounts]
    makes = toolset(lambda: [tool(pay, requires_approval=much)], name="bank")
    return Agent("payer", model=ScriptedModel(*script, "Done."), instructions="", tools=[makes])


async def test_the_arguments_decide_whether_a_person_is_asked(open_backend: Open) -> None:
    judged: list[int] = []
    agent = by_amount(5, 50, "all", journal=judged)
    async with open_backend([agent]) as backend:
        run = await backend.start(agent, "go")
        while not (pending := await backend.approvals(run=run.id)):  # noqa: ASYNC110 - a page would ask again too
            await asyncio.sleep(0.01)
        assert [each.arguments for each in pending] == [{"to": "Ann", "amount": 50}]
        await backend.reject(pending[0], "too much")
        result = await run.result()
    assert told(result)[:2] == [("paid 5 to Ann", False), ("pay was not run: a person refused it: too much", True)]
    assert told(result)[2][0].startswith("invalid arguments for pay: amount"), "nobody is asked about such a call"
    assert judged == [5, 50]


async def test_what_the_arguments_decided_is_the_same_wherever_the_run_crashes() -> None:
    report = await crash_matrix(lambda: by_amount(5, 50), "go", functions=[reviewer])
    assert report.ok, report
    assert not report.error, report
    assert {"request-pay", "request-pay:1", "gather[1]/ask-pay"} <= {each.key for each in report.steps}
    assert "gather[1]/ask-pay:1" not in {each.key for each in report.steps}


class Vault(Toolset):
    """A toolset of a user's own, whose tool asks unless its arguments are small."""

    @property
    def name(self) -> str:
        return "vault"

    async def list_tools(self, run: RunContext) -> list[ListedTool]:
        return [
            ListedTool(name="take", description="", parameters={}, requires_approval=True, approval_by_arguments=True),
            ListedTool(name="open", description="", parameters={}, requires_approval=True),
        ]

    async def call_tool(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> str:
        return f"{listed.name}: {arguments}"

    async def needs_approval(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> bool:
        assert isinstance(arguments, dict)
        assert listed.name == "take", "of the other one a person is always asked"
        return bool(arguments["count"] > 1)


async def test_a_toolset_of_ones_own_decides_by_arguments_too() -> None:
    script = (call("take", count=1), call("take", count=2), call("open"), "Done.")
    agent = Agent("keeper", model=ScriptedModel(*script), instructions="", tools=[Vault()])
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, "go")
        for tool_name in ("take", "open"):
            while not (pending := await backend.approvals(run=run.id)):  # noqa: ASYNC110 - a page would ask again too
                await asyncio.sleep(0.01)
            assert [each.tool for each in pending] == [tool_name]
            await backend.approve(pending[0])
        result = await run.result()
    assert told(result) == [("take: {'count': 1}", False), ("take: {'count': 2}", False), ("open: {}", False)]


async def test_a_run_goes_on_elsewhere_with_the_tools_that_it_began_with(caplog: pytest.LogCaptureFixture) -> None:
    script = (call("take_cup", count=1), call("take_pot", count=1))
    journal = MemoryJournal()

    class Gone(Signal):
        pass

    def probe(point: Point) -> None:
        if (point.name, point.key) == ("after_commit", "tool-take_cup"):
            raise Gone

    before = clerk(Shelf("cup", "pot"), *script)
    async with MemoryBackend([before], journal=journal) as backend:
        backend.probe = probe
        run = await backend.start(before, ASKED, run_id="r")
        with pytest.raises(Gone):
            await run.result()
    after = clerk(Shelf("cup"), *script)
    async with MemoryBackend([after], journal=journal) as backend:
        result = await (await backend.run("r")).result()
    gone = "take_pot is not there any more: the toolset 'shelf' has changed"
    assert told(result) == [("1 cup for Ann", False), (gone, True)]
    model = after.model
    assert isinstance(model, ScriptedModel)
    assert [each.name for each in model.requests[0].tools] == ["look", "take_cup", "take_pot", "ask"]


async def test_a_schema_that_has_changed_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    versions = iter([int, float])

    async def tools() -> list[Tool]:
        kind = next(versions)

        async def add(number: kind) -> str:  # type: ignore[valid-type]
            """Add."""
            return str(number)

        add.__annotations__["number"] = kind
        return [tool(add)]

    made = toolset(tools)
    agent = Agent("adder", model=ScriptedModel(call("add", number=1), "Done."), instructions="", tools=[made])
    (bound,) = agent.toolsets
    async with MemoryBackend([agent]) as backend:
        backend.probe = lambda point: vars(bound)["_made"].clear() if point.name == "before_body" else None
        with caplog.at_level(logging.WARNING, logger="durably"):
            result = await backend.invoke(agent, "go")
    assert told(result) == [("1.0", False)]
    assert "the parameters of add have changed since run" in caplog.text


async def test_a_callable_that_says_so_needs_no_decorator() -> None:
    def more() -> list[Tool]:
        return [look]

    async def most() -> tuple[Tool, ...]:
        return (tool(_named(lambda count: f"{count}", "all"), description="Take all."),)

    agent = Agent("a", model=ScriptedModel(call("look"), "Done."), instructions="", tools=[more, most])
    assert [each.name for each in agent.toolsets] == ["more", "most"]
    async with MemoryBackend([agent]) as backend:
        assert told(await backend.invoke(agent, "go")) == [("a shelf", False)]


async def test_no_crash_changes_what_a_run_is_told() -> None:
    report = await crash_matrix(lambda: clerk(Shelf("cup"), call("take_cup", count=2)), ASKED.model_dump())
    assert report.ok, str(report)


async def _code(ctx: ToolContext) -> str:
    return ""


WRONG: list[tuple[str, Any]] = [
    ("is a CodeTool: a toolset makes plain tools", lambda: [tool(_code, steps=True)]),
    ("is a Delegate: a toolset makes plain tools", lambda: [delegate("other", max_depth=1)]),
    ("made two tools of one name", lambda: [look, look]),
    ("the toolset 'made' has a tool 'look', and the agent has another one", lambda: [look]),
]


@pytest.mark.parametrize(("sentence", "make"), WRONG, ids=lambda each: each if isinstance(each, str) else "")
async def test_a_toolset_that_cannot_work_fails_its_run(sentence: str, make: Any) -> None:
    tools: list[Tool | Toolset] = [look, toolset(make, name="made")]
    agent = Agent("a", model=ScriptedModel("Done."), instructions="", tools=tools)
    async with MemoryBackend([agent]) as backend:
        with pytest.raises(InvokeError, match=sentence):
            await backend.invoke(agent, "go")


async def test_a_toolset_that_cannot_work_is_refused() -> None:
    with pytest.raises(DefinitionError, match="give a function that returns tools"):
        toolset(partial(list))
    with pytest.raises(DefinitionError, match="two toolsets named 'shelf'"):
        Agent("a", model="anthropic:x", instructions="", tools=[_shelf(), _shelf()])
    with pytest.raises(DefinitionError, match=r"its toolset 'tools' asks for ToolContext\[str\]"):
        Agent("a", model="anthropic:x", instructions="", tools=[toolset(Shelf().tools)])


def _shelf() -> Any:
    return toolset(lambda: [look], name="shelf")


async def test_a_trace_puts_the_conversation_together_from_what_was_listed() -> None:
    agent = clerk(Shelf("apple"), call("take_apple", count=2))
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, ASKED)
        await run.result()
        [conversation] = (await run.trace()).conversations
    assert conversation.exact
    assert [entry.message.role for entry in conversation.entries if entry.message] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
