"""What type checkers know of agents. mypy and pyright check this file; the tests show that it tells the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, AgentInput, AgentResult, Run, ToolContext, tool
from durably.testing import ScriptedModel, call


@dataclass
class Customer:
    name: str


@dataclass
class Invoice:
    total: int


@tool
async def look(ctx: ToolContext[Customer]) -> str:
    """Look the customer up."""
    return assert_type(ctx.context, Customer).name


def instructions(ctx: ToolContext[Customer]) -> str:
    return assert_type(ctx.context.name, str)


model = ScriptedModel(call("look"), '{"total": 7}')
plain = Agent("plain", model=ScriptedModel("Done."), instructions="Help.")
typed = Agent("typed", model=model, instructions="Help.", output_type=Invoice)
served = Agent(
    "served", model=model, instructions=instructions, tools=[look], output_type=Invoice, context_type=Customer
)
listed = Agent("listed", model=model, instructions="", output_type=list[int])
either = Agent("either", model=model, instructions="", output_type=Invoice | None)


def test_an_agent_is_generic_in_its_output_and_its_context() -> None:
    assert_type(plain, Agent[None, Any])
    assert_type(typed, Agent[Invoice, Any])
    assert_type(served, Agent[Invoice, Customer])
    assert_type(listed, Agent[list[int], Any])
    assert_type(either, Agent[Any, Any])
    agents: list[Agent] = [plain, typed, served, listed]
    assert len(agents) == 4


def test_so_are_inputs_and_results() -> None:
    asked = AgentInput[Customer](message="Hi", context=Customer("Ann"))
    assert_type(asked.context, Customer | None)
    assert_type(AgentResult[Invoice](text="", iterations=1).output, Invoice | None)
    assert asked.context == Customer("Ann")


@pytest.mark.asyncio
async def test_the_output_of_a_result_has_its_type() -> None:
    async with MemoryBackend([served, plain]) as backend:
        run = await backend.start(served, AgentInput(message="Hi", context=Customer("Ann")))
        assert_type(run, Run[AgentResult[Invoice]])
        result = await run.result()
        assert_type(result.output, Invoice | None)
        assert result.output is not None
        assert assert_type(result.output.total, int) == 7
        assert (await backend.invoke(plain, "Hi")).output is None


def _wrong_context(backend: MemoryBackend, asked: AgentInput[int]) -> object:
    # Both type checkers want the two comments: without an error there, each would complain.
    return backend.invoke(served, asked)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
