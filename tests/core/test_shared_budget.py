"""The budget of a run, and the agents that draw on it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends import MemoryBackend
from durably.core import Agent, AgentResult, Budget, assistant, delegate, tool
from durably.core.history import History
from durably.core.messages import AssistantMessage, ToolCall
from durably.core.model import ModelRequest, ModelResponse, Usage
from durably.testing import ScriptedModel, crash_matrix, replay

PRICE = 0.01
"""Dollars for a token."""


@dataclass(frozen=True)
class Node:
    """An agent: what each call of its model takes, and in which turns it asks which others. It never ends by itself."""

    tokens: int
    turns: tuple[tuple[Node, ...], ...]

    def overdraft(self) -> int:
        """By how much it may exceed its budget: a call of its own, and one of each agent that works meanwhile."""
        return self.tokens + max((sum(each.overdraft() for each in turn) for turn in self.turns), default=0)


nodes = st.recursive(
    st.builds(Node, st.integers(1, 9), st.just(())),
    lambda deeper: st.builds(
        Node, st.integers(1, 9), st.lists(st.lists(deeper, max_size=3).map(tuple), max_size=3).map(tuple)
    ),
    max_leaves=6,
)


@tool
async def look() -> str:
    """Look."""
    return "nothing"


def agent_of(node: Node, budget: Budget | None = None, numbers: Iterator[int] | None = None) -> Agent:
    """The agent of a node, with a name of its own."""
    numbers = iter(range(1000)) if numbers is None else numbers
    name = f"n{next(numbers)}"
    asked = [[agent_of(each, None, numbers) for each in turn] for turn in node.turns]

    def answer(request: ModelRequest) -> ModelResponse:
        turn = asked[request.turn % len(asked)] if asked else []
        names = [f"ask_{each.name}" for each in turn] or ["look"]
        calls = [
            ToolCall(id=f"{request.turn}-{number}", name=each, arguments={} if each == "look" else {"task": "go"})
            for number, each in enumerate(names)
        ]
        usage = Usage(output_tokens=node.tokens)
        return ModelResponse(message=AssistantMessage(parts=[*calls]), usage=usage, cost=node.tokens * PRICE)

    tools: list[Any] = [look, *(delegate(each) for turn in asked for each in turn)]
    return Agent(name, model=ScriptedModel(answer), instructions="", tools=tools, budget=budget, max_iterations=500)


async def result_of(agent: Agent) -> AgentResult:
    async with MemoryBackend([agent]) as backend:
        result: AgentResult = await backend.invoke(agent, "go")
    return result


@given(nodes, st.integers(1, 150), st.booleans())
@settings(max_examples=40, deadline=None)
def test_agents_that_work_at_once_exceed_the_budget_by_one_call_each(node: Node, limit: int, dollars: bool) -> None:
    budget = Budget(cost=limit * PRICE) if dollars else Budget(tokens=limit)
    result = asyncio.run(result_of(agent_of(node, budget)))
    assert result.stop_reason == "budget"
    assert result.cost == pytest.approx(result.usage.output_tokens * PRICE)
    assert limit <= result.usage.output_tokens <= limit + node.overdraft()


WIDE = Node(1, ((Node(1, ()),) * 3,))
"""One agent that asks three at once."""


def undivided(budget: Budget, shares: int) -> Budget:
    """As it was when each of several agents was given all that was left."""
    return budget


def test_without_a_division_the_property_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "divided", undivided)
    result = asyncio.run(result_of(agent_of(WIDE, Budget(tokens=40))))
    assert result.usage.output_tokens > 40 + WIDE.overdraft()


@pytest.mark.asyncio
async def test_what_one_agent_does_not_spend_is_there_for_the_next() -> None:
    frugal = Agent("frugal", model=ScriptedModel(_said(1), _said(1)), instructions="")
    eager = agent_of(Node(1, ()))
    asks = [ToolCall(id=name, name=f"ask_{name}", arguments={"task": "go"}) for name in ("frugal", eager.name)]
    model = ScriptedModel(_said(1, *asks), _said(1, asks[1]), _said(1))
    agent = Agent(
        "a", model=model, instructions="", tools=[delegate(frugal), delegate(eager)], budget=Budget(tokens=21)
    )
    async with MemoryBackend([agent]) as backend:
        await backend.invoke(agent, "go")
        children = await backend.runs(function=eager.name)
        spent = [(await each.result()).usage.output_tokens for each in reversed([*children])]
    # Half of 20; then 21 - 1 - 1 - 10 - 1.
    assert spent == [10, 8]


def _said(tokens: int, *calls: ToolCall) -> ModelResponse:
    message = AssistantMessage(parts=[*calls]) if calls else assistant("done")
    return ModelResponse(message=message, usage=Usage(output_tokens=tokens))


@pytest.mark.asyncio
async def test_no_crash_changes_what_is_spent() -> None:
    two = Node(1, ((Node(1, ()),) * 2,))
    report = await crash_matrix(lambda: agent_of(two, Budget(tokens=5)), "go")
    assert report.ok, report
    assert not report.error, report


@pytest.mark.asyncio
async def test_a_run_of_before_goes_on_with_an_undivided_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(Budget, "divided", undivided)
        agent = agent_of(WIDE, Budget(tokens=9))
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "go")
            recorded = await run.result()
            history = (await run.history()).to_jsonl()
    field = r",\"budget_shares\":3"
    assert field in history
    old = History.from_jsonl(history.replace(field, ""))
    now = agent_of(WIDE, Budget(tokens=9))
    again = await replay(old, [now])
    assert (again.usage, again.stop_reason) == (recorded.usage, "budget")
