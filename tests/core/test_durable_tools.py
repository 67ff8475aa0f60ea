"""Tools that are durable code: durable functions, and code with steps of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    AgentResult,
    Context,
    DefinitionError,
    InvokeError,
    PendingApproval,
    ToolContext,
    ToolError,
    Trace,
    approve,
    current_step,
    function,
    tool,
)
from durably.core.messages import ToolResultMessage
from durably.testing import ScriptedModel, call, crash_matrix

pytestmark = pytest.mark.asyncio


@dataclass
class Order:
    """An order."""

    number: int
    rush: bool = False


class Parcel(BaseModel):
    id: str


@function("ship.order")
async def ship(ctx: Context[Order]) -> Parcel:
    """Ship an order."""
    if ctx.input.number < 0:
        raise ToolError("there is no such order")
    made: str = await ctx.step.run("pack", pack, ctx.input.number)
    return Parcel(id=made)


async def pack(number: int) -> str:
    return f"parcel-{number}"


@function("count")
async def count(ctx: Context[None]) -> int:
    return 7


@function("greet")
async def greet(ctx: Context[str]) -> str:
    return f"Hello, {ctx.input}"


def agent(tools: list[Any], *script: Any, **options: Any) -> Agent:
    return Agent("clerk", model=ScriptedModel(*script, "Done."), instructions="", tools=tools, **options)


def told(result: Any) -> list[tuple[Any, bool]]:
    return [(each.content, each.is_error) for each in result.messages if each.role == "tool"]


def traced(trace: Trace) -> list[tuple[Any, bool]]:
    messages = [each.message for each in trace.conversations[0].entries]
    return [(each.content, each.is_error) for each in messages if isinstance(each, ToolResultMessage)]


async def pending(backend: MemoryBackend, run_id: str) -> PendingApproval:
    while True:
        for found in await backend.approvals(run=run_id):
            return found
        await asyncio.sleep(0)


async def test_a_durable_function_is_invoked_for_each_call() -> None:
    clerk = agent(
        [ship, tool(greet, name="hello"), count],
        call("ship_order", number=7, rush=True),
        [call("hello", input="Ann"), call("count")],
    )
    async with MemoryBackend([clerk]) as backend:
        run = await backend.start(clerk, "go")
        result = await run.result()
        (child,) = await backend.runs(function="ship.order")
        assert '"rush":true' in (await child.history()).records[0].to_json().replace("\\", "")
        trace = await run.trace()
    assert told(result) == [('{"id":"parcel-7"}', False), ("Hello, Ann", False), ("7", False)]
    assert [each.parameters for each in clerk.specs] == [
        {
            "type": "object",
            "properties": {
                "number": {"title": "Number", "type": "integer"},
                "rush": {"default": False, "title": "Rush", "type": "boolean"},
            },
            "required": ["number"],
        },
        {
            "type": "object",
            "properties": {"input": {"title": "Input", "type": "string"}},
            "required": ["input"],
            "additionalProperties": False,
        },
        {"type": "object", "properties": {}, "additionalProperties": False},
    ]
    assert clerk.specs[0].description == "Ship an order."
    shown = [content for content, _ in traced(trace)]
    assert shown == ['{"id":"parcel-7"}', "Hello, Ann", "7"]


async def test_the_model_is_told_what_was_wrong_and_the_child_judges_the_rest() -> None:
    def must_be_even(number: int) -> int:
        assert number % 2 == 0, "an even number"
        return number

    @function("halve")
    async def halve(ctx: Context[Annotated[int, AfterValidator(must_be_even)]]) -> int:
        return ctx.input // 2

    clerk = agent(
        [ship, halve],
        call("ship_order", number="many"),
        call("ship_order", number=-1),
        call("halve", input=4),
        call("halve", input=5),
    )
    async with MemoryBackend([clerk]) as backend:
        run = await backend.start(clerk, "go")
        result = await run.result()
        assert len(await backend.runs(function="ship.order")) == 1
    (wrong, _), (failed, _), half, (odd, _) = told(result)
    assert wrong.startswith("invalid arguments for ship_order: number")
    assert "there is no such order" in failed
    assert half == ("2", False)
    assert "an even number" in odd
    assert [error for _, error in told(result)] == [True, True, False, True]


async def test_an_agent_behind_a_function_is_told_by_its_text_and_its_cost_counts() -> None:
    expert = Agent("expert", model=ScriptedModel("Yes."), instructions="")

    @function("ask")
    async def ask(ctx: Context[str]) -> AgentResult[None]:
        return await ctx.step.invoke("expert", expert, ctx.input)

    clerk = agent([ask], call("ask", input="?"))
    async with MemoryBackend([clerk, expert]) as backend:
        result = await backend.invoke(clerk, "go")
    assert told(result) == [("Yes.", False)]
    assert result.usage.input_tokens == 30, "two turns of the clerk's, one of the expert's"


async def test_a_failed_function_fails_the_run_on_demand() -> None:
    clerk = agent([tool(ship, on_error="raise", timeout=timedelta(minutes=1))], call("ship_order", number=-1))
    async with MemoryBackend([clerk]) as backend:
        with pytest.raises(InvokeError, match="there is no such order"):
            await backend.invoke(clerk, "go")


async def test_a_person_may_have_to_approve_it() -> None:
    asked: list[object] = []

    def much(number: int) -> bool:
        asked.append(number)
        return number > 5

    clerk = agent(
        [tool(ship, requires_approval=much)], call("ship_order", number=3), call("ship_order", number=7, rush=False)
    )
    async with MemoryBackend([clerk]) as backend:
        run = await backend.start(clerk, "go")
        await backend.approve(await pending(backend, run.id), arguments={"number": 8})
        result = await run.result()
    assert asked == [3, 7]
    assert told(result)[1][0].endswith('{"id":"parcel-8"}')


# -- code with steps of its own


paid: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _forget() -> None:
    paid.clear()


async def pay(amount: int) -> str:
    key = current_step().idempotency_key
    paid[key] = amount
    return f"receipt {len(paid)}"


@tool(steps=True)
async def settle(amount: int, ctx: ToolContext) -> str:
    """Pay in two halves."""
    if amount < 2:
        raise ToolError("too little")
    first = await ctx.step.run("think", pay, amount // 2)
    await ctx.step.sleep("pause", "1h")
    second = await ctx.step.run("think", pay, amount - amount // 2)
    return f"{first}, {second} of {ctx.run_id} at {ctx.resources.get('desk')}"


async def test_code_runs_steps_of_its_own_in_a_branch_of_its_own() -> None:
    clerk = agent([settle], call("settle", amount=5), [call("settle", amount=1), call("settle", amount=9)])
    async with MemoryBackend([clerk], resources={"desk": "a desk"}) as backend:
        run = await backend.start(clerk, "go", run_id="r")
        result = await run.result()
        keys = [record.key for record in (await run.history()).steps()]
        trace = await run.trace()
    assert sorted(paid.values()) == [2, 3, 4, 5]
    expected = [
        ("receipt 1, receipt 2 of r at a desk", False),
        ("too little", True),
        ("receipt 3, receipt 4 of r at a desk", False),
    ]
    assert told(result) == expected
    assert traced(trace) == expected
    assert sorted(keys) == sorted(
        [
            "load-context",
            "load-history",
            "think",
            "gather[0]/think",
            "gather[0]/pause",
            "gather[0]/think:1",
            "tool-settle",
            "think:1",
            "gather:1[0]/tool-settle",
            "gather:1[1]/gather[0]/think",
            "gather:1[1]/gather[0]/pause",
            "gather:1[1]/gather[0]/think:1",
            "gather:1[1]/tool-settle",
            "think:2",
        ]
    )


async def test_whatever_code_raises_is_told_to_the_model_or_fails_the_run() -> None:
    async def broken(how: str, ctx: ToolContext) -> str:
        """Break."""
        if how == "step":
            await ctx.step.run("fail", fail, retries=0)
        raise KeyError(how)

    clerk = agent([tool(broken, steps=True)], call("broken", how="step"), call("broken", how="code"))
    strict = agent([tool(broken, steps=True, on_error="raise")], call("broken", how="step"))
    async with MemoryBackend([clerk]) as backend:
        result = await backend.invoke(clerk, "go")
    (step, _), code = told(result)
    assert "out of paper" in step
    assert code == ("KeyError: 'code'", True)
    async with MemoryBackend([strict]) as backend:
        with pytest.raises(InvokeError, match="out of paper"):
            await backend.invoke(strict, "go")


async def fail() -> None:
    raise OSError("out of paper")


async def test_code_waits_for_a_person_first() -> None:
    clerk = agent([tool(settle.fn, name="settle", steps=True, requires_approval=True)], call("settle", amount=5))
    async with MemoryBackend([clerk], resources={"desk": "d"}) as backend:
        run = await backend.start(clerk, "go")
        asked = await pending(backend, run.id)
        assert paid == {}
        await backend.send(approve(asked.id))
        await run.result()
    assert sorted(paid.values()) == [2, 3]


async def test_no_crash_doubles_a_step_of_a_tool() -> None:
    def fresh() -> tuple[Agent, dict[str, int]]:
        paid.clear()
        return agent([settle, ship], call("settle", amount=5), call("ship_order", number=7)), paid

    report = await crash_matrix(fresh, "go", state=lambda paid: sorted(paid.values()))
    assert report.ok, str(report)


@tool
async def confused(ctx: ToolContext) -> str:
    """Ask for steps."""
    await ctx.step.run("pay", pay, 1)
    return ""


async def test_a_tool_that_runs_in_a_step_has_none() -> None:
    clerk = agent([confused], call("confused"))
    async with MemoryBackend([clerk]) as backend:
        result = await backend.invoke(clerk, "go")
    assert "declare it with @tool(steps=True)" in told(result)[0][0]


async def _code(ctx: ToolContext) -> str:
    return ""


async def _judging(number: Annotated[int, AfterValidator(abs)], ctx: ToolContext) -> str:
    return ""


def _sync(ctx: ToolContext) -> str:
    return ""


WRONG: list[tuple[str, Any]] = [
    ("which has its own retries: leave out retries=", partial(tool, ship, retries=1)),
    ("which has its own effect: leave out effect=", partial(tool, ship, effect="pure")),
    ("an output_type of its own", partial(tool, ship, output_type=str)),
    ("takes 'amount', which is no parameter", partial(tool, ship, requires_approval=lambda amount: True)),
    ("which have their own timeout: leave out timeout=", partial(tool, _code, steps=True, timeout=3)),
    ("write it with 'async def'", partial(tool, _sync, steps=True)),
    ("a validator of a parameter might come to another verdict", partial(tool, _judging, steps=True)),
    ("is an agent: write delegate\\(expert\\)", lambda: agent([Agent("expert", model="anthropic:x", instructions="")])),
]


@pytest.mark.parametrize(("sentence", "define"), WRONG, ids=lambda each: each if isinstance(each, str) else "")
async def test_what_cannot_work_is_refused_where_it_is_defined(sentence: str, define: Any) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        define()
