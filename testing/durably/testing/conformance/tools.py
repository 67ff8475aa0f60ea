"""C33: what the tools of an agent are given, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durably.core import Agent, AgentInput, Context, Tool, ToolContext, current_step, delegate, function, tool, toolset
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel, call


@dataclass
class _Customer:
    name: str
    tier: int


class _Shop:
    """An agent and its delegate, of which both serve a customer; who was served, and from where."""

    def __init__(self) -> None:
        context = _Customer("Ann", 2)
        self.asked = AgentInput[_Customer](message="serve", session_key="c33", context=context)
        self.resources = {"shop": "on the corner"}
        self.served: list[tuple[_Customer, str | None, str]] = []

        @tool
        async def serve(item: str, ctx: ToolContext[_Customer]) -> str:
            """Serve the customer."""
            self.served.append((ctx.context, ctx.session_key, ctx.resources["shop"]))
            return f"{item} for {ctx.context.name}"

        def greet(ctx: ToolContext[_Customer]) -> str:
            return f"You serve {ctx.context.name}, tier {ctx.context.tier}."

        common: dict[str, Any] = {"instructions": greet, "context_type": _Customer}
        self.model = ScriptedModel(call("serve", item="tea"), "served")
        self.helper = Agent("c33-helper", model=self.model, tools=[serve], **common)
        script = ScriptedModel(call("serve", item="milk"), call("ask_c33-helper", task="serve tea"), "done")
        self.agent = Agent("c33-shop", model=script, tools=[serve, delegate(self.helper)], **common)


@clause
async def test_c33_the_context_of_a_run_reaches_tools_instructions_and_delegates(subject: Subject) -> None:
    shop = _Shop()
    result, history = await subject.run(shop.agent, data=shop.asked, resources=shop.resources)
    ann = _Customer("Ann", 2)
    (own, _, resource), (delegated, _, _) = shop.served
    assert (own, delegated, resource) == (ann, ann, "on the corner")
    assert shop.served[0][1] == "c33"
    assert shop.served[1][1] != "c33", "a delegate has a session of its own"
    assert {each.content for each in result.messages if each.role == "tool"} == {"milk for Ann", "served"}
    for request in shop.model.requests:
        assert request.system == "You serve Ann, tier 2."
        (spec,) = request.tools
        assert list(spec.parameters["properties"]) == ["item"], "the model does not see who asks for the context"
    assert "on the corner" not in history.to_jsonl()


@clause
async def test_c33_the_context_is_the_same_after_a_crash(subject: Subject) -> None:
    shop = _Shop()
    options: dict[str, Any] = {"data": shop.asked, "resources": shop.resources}
    assert await subject.crash(shop.agent, where=at("after_effect", "tool-serve"), **options)
    result, _ = await subject.run(shop.agent, **options)
    assert [served[:2] for served in shop.served[:2]] == [(_Customer("Ann", 2), "c33")] * 2
    assert result.messages[2].content == "milk for Ann"


class _Bank:
    """An agent whose tools are durable code: one runs steps of its own, and one is a function; what they booked."""

    def __init__(self) -> None:
        self.booked: dict[str, int] = {}

        async def book(amount: int) -> int:
            self.booked[current_step().idempotency_key] = amount
            return len(self.booked)

        @tool(steps=True)
        async def split(amount: int, ctx: ToolContext) -> str:
            """Book in two parts."""
            first = await ctx.step.run("think", book, 1)
            second = await ctx.step.run("think", book, amount - 1)
            return f"parts {first} and {second}"

        @function("c33-transfer")
        async def transfer(ctx: Context[int]) -> str:
            number = await ctx.step.run("book", book, ctx.input)
            return f"transfer {number}"

        script = ScriptedModel(call("split", amount=5), call("c33-transfer", input=7), "done")
        self.agent = Agent("c33-bank", model=script, instructions="", tools=[split, transfer])

    told = ("parts 1 and 2", "transfer 3")


def _told(messages: Any) -> tuple[Any, ...]:
    return tuple(each.content for each in messages if each.role == "tool")


@clause
async def test_c33_a_tool_may_run_steps_of_its_own_and_be_a_durable_function(subject: Subject) -> None:
    bank = _Bank()
    async with subject.open([bank.agent]) as backend:
        run = await backend.start(bank.agent, "go", run_id=subject.run_id())
        result = await run.result()
        children = await backend.runs(function="c33-transfer", parent=run.id)
        keys = {record.key for record in (await run.history()).steps()}
    assert _told(result.messages) == bank.told
    assert sorted(bank.booked.values()) == [1, 4, 7]
    assert len(children) == 1
    assert {"gather[0]/think", "gather[0]/think:1", "tool-split", "tool-c33-transfer"} <= keys
    assert "gather[1]/think" not in keys, "its steps are numbered among themselves"


@clause
async def test_c33_a_crash_repeats_no_step_of_a_tool(subject: Subject) -> None:
    bank = _Bank()
    assert await subject.crash(bank.agent, data="go", where=at("after_commit", "gather[0]/think"))
    assert await subject.crash(bank.agent, data="go", where=at("before_start", "tool-split"))
    result, _ = await subject.run(bank.agent, data="go")
    assert _told(result.messages) == bank.told
    assert sorted(bank.booked.values()) == [1, 4, 7]


@clause
async def test_c33_a_toolset_lists_its_tools_once_and_a_run_keeps_them(subject: Subject) -> None:
    made: list[int] = []

    def tools() -> list[Tool]:
        made.append(len(made))

        async def pick(item: str) -> str:
            return f"{item} picked"

        async def late() -> str:
            return "too late"

        first = tool(pick, description=f"Pick, of list {len(made)}.")
        return [first] if len(made) == 1 else [first, tool(late)]

    script = ScriptedModel(call("pick", item="tea"), call("late"), "done")
    agent = Agent("c33-picker", model=script, instructions="", tools=[toolset(tools, name="shelf")])
    assert await subject.crash(agent, data="go", where=at("after_commit", "list-shelf"))
    assert await subject.crash(agent, data="go", where=at("after_commit", "think"))
    result, _ = await subject.run(agent, data="go")
    assert _told(result.messages) == ("tea picked", "there is no tool 'late'; the tools are: pick")
    for request in script.requests:
        (spec,) = request.tools
        assert (spec.name, spec.description) == ("pick", "Pick, of list 1."), "what the model sees stays as it was"


@clause
async def test_c33_options_of_the_model_are_chosen_once_for_a_run(subject: Subject) -> None:
    chosen: list[str] = []

    async def choose(ctx: ToolContext[_Customer]) -> dict[str, Any]:
        chosen.append(ctx.context.name)
        return {"temperature": 0.5 * len(chosen)}

    async def pick(item: str) -> str:
        return f"{item} picked"

    script = ScriptedModel(call("pick", item="tea"), "done")
    agent = Agent(
        "c33-chooser", model=script, instructions="", tools=[pick], context_type=_Customer, model_options=choose
    )
    asked = AgentInput[_Customer](message="go", context=_Customer("Ann", 2))
    assert await subject.crash(agent, data=asked, where=at("after_commit", "load-options"))
    assert await subject.crash(agent, data=asked, where=at("after_effect", "think"))
    result, _ = await subject.run(agent, data=asked)
    assert result.text == "done"
    assert chosen == ["Ann"], "they are not chosen anew"
    assert [request.options for request in script.requests] == [{"temperature": 0.5}] * len(script.requests)
