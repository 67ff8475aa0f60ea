"""C33: what the tools of an agent are given, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durably.core import Agent, AgentInput, ToolContext, delegate, tool
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
