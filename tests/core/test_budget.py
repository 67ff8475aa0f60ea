"""What a run may spend."""

from __future__ import annotations

import pytest

from durably.core import (
    Agent,
    AgentResult,
    Budget,
    DefinitionError,
    InvokeError,
    assistant,
    delegate,
    tool,
)
from durably.core.messages import AssistantMessage, ToolCall
from durably.core.model import ModelResponse, Usage
from durably.testing import ScriptedModel, call
from tests.conftest import Open


@tool
async def look(place: int) -> str:
    """Look at a place."""
    return f"nothing at {place}"


def turn(number: int, *, cost: float | None, tokens: int = 15) -> ModelResponse:
    called = ToolCall(id=f"call_{number}", name="look", arguments={"place": number})
    return ModelResponse(
        message=AssistantMessage(parts=[called]), usage=Usage(input_tokens=tokens), cost=cost, model="m-1"
    )


async def ask(open_backend: Open, agent: Agent) -> AgentResult:
    async with open_backend([agent]) as backend:
        return await backend.invoke(agent, "go")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("budget", "turns"),
    [
        (Budget(tokens=15), 1),
        (Budget(tokens=16), 2),
        (Budget(tokens=45), 3),
        (Budget(cost=0.1), 1),
        (Budget(cost=0.4), 2),
        (Budget(cost=1, tokens=30), 2),
        (Budget(cost=0.5, tokens=1000), 2),
    ],
)
async def test_a_run_ends_after_the_turn_that_spends_its_budget(open_backend: Open, budget: Budget, turns: int) -> None:
    model = ScriptedModel(*(turn(number, cost=0.25) for number in range(9)))
    agent = Agent("a", model=model, instructions="", tools=[look], budget=budget)
    result = await ask(open_backend, agent)
    assert (result.stop_reason, result.iterations, result.tool_calls) == ("budget", turns, turns)
    assert result.cost == 0.25 * turns
    assert len(model.requests) == turns
    assert [message.role for message in result.messages] == ["user", *["assistant", "tool"] * turns]


@pytest.mark.asyncio
async def test_an_answer_within_the_last_turn_is_an_answer(open_backend: Open) -> None:
    done = ModelResponse(message=assistant("done"), usage=Usage(output_tokens=99), cost=9)
    agent = Agent("a", model=ScriptedModel(done), instructions="", budget=Budget(tokens=1, cost=1))
    result = await ask(open_backend, agent)
    assert (result.stop_reason, result.text) == ("completed", "done")


@pytest.mark.asyncio
async def test_a_budget_in_dollars_needs_a_price(open_backend: Open) -> None:
    agent = Agent(
        "a", model=ScriptedModel(turn(0, cost=None), "done"), instructions="", tools=[look], budget=Budget(cost=1)
    )
    with pytest.raises(InvokeError, match=r"the price of m-1 is not known.*Budget\(tokens=") as raised:
        await ask(open_backend, agent)
    assert raised.value.error_type == "NonRetriableError"


@pytest.mark.asyncio
async def test_what_a_delegate_spends_counts(open_backend: Open) -> None:
    costly = ModelResponse(message=assistant("found"), usage=Usage(input_tokens=500), cost=2)
    expert = Agent("expert", model=ScriptedModel(costly), instructions="")
    asks = ModelResponse(
        message=AssistantMessage(parts=[ToolCall(id="c", name="ask_expert", arguments={"task": "find"})]), cost=0.1
    )
    agent = Agent(
        "a", model=ScriptedModel(asks, "never"), instructions="", tools=[delegate(expert)], budget=Budget(cost=1)
    )
    result = await ask(open_backend, agent)
    assert (result.stop_reason, result.cost, result.usage.input_tokens) == ("budget", 2.1, 500)


@pytest.mark.asyncio
async def test_a_delegate_whose_price_is_not_known_may_have_spent_everything(open_backend: Open) -> None:
    expert = Agent("expert", model=ScriptedModel(turn(1, cost=None), "never"), instructions="", tools=[look], retries=0)
    asks = ModelResponse(
        message=AssistantMessage(parts=[ToolCall(id="c", name="ask_expert", arguments={"task": "find"})]), cost=0.1
    )
    agent = Agent(
        "a", model=ScriptedModel(asks, "never"), instructions="", tools=[delegate(expert)], budget=Budget(cost=1)
    )
    result = await ask(open_backend, agent)
    assert (result.stop_reason, result.cost, result.usage.input_tokens) == ("budget", None, 15)


@pytest.mark.parametrize("limits", [{}, {"cost": 0}, {"tokens": 0}, {"cost": 1, "tokens": -1}])
def test_a_budget_that_cannot_be_kept_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(DefinitionError, match="a cost in US dollars, a number of tokens, one of tool calls"):
        Budget(**limits)


@pytest.mark.asyncio
async def test_fallback_asks_the_next_model(open_backend: Open) -> None:
    first, second = ScriptedModel(name="first"), ScriptedModel(call("look", place=1), "done", name="second")
    agent = Agent("a", model=first, fallback=second, instructions="", tools=[look])
    assert (await ask(open_backend, agent)).text == "done"
    assert agent.model.name == "fallback:first|second"
    assert [len(model.requests) for model in (first, second)] == [2, 2]
