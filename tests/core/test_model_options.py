"""Options of the model that depend on the run: chosen once, recorded, and seen by the trace."""

from __future__ import annotations

from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, AgentInput, DefinitionError, ToolContext, Trace, tool
from durably.testing import ScriptedModel, call

pytestmark = pytest.mark.asyncio

CHOSEN: list[str] = []


@tool
async def look() -> str:
    """Look."""
    return "seen"


async def by_customer(ctx: ToolContext[dict[str, str]]) -> dict[str, Any]:
    CHOSEN.append(ctx.context["plan"])
    return {"reasoning": {"effort": {"free": "low", "paid": "high"}[ctx.context["plan"]]}}


def agent(model: ScriptedModel) -> Agent:
    return Agent(
        "a", model=model, instructions="", tools=[look], context_type=dict[str, str], model_options=by_customer
    )


async def test_they_are_chosen_once_for_each_run_and_recorded() -> None:
    model = ScriptedModel(call("look"), "done")
    CHOSEN.clear()
    made = agent(model)
    async with MemoryBackend([made], evict="always") as backend:
        run = await backend.start(made, AgentInput(message="?", context={"plan": "paid"}))
        result = await run.result()
        history = await run.history()
    assert CHOSEN == ["paid"]
    assert [request.options for request in model.requests] == [{"reasoning": {"effort": "high"}}] * 2
    keys = [record.key for record in history.records]
    assert keys.index("load-options") < keys.index("think")
    [conversation] = Trace.of(history).conversations
    assert conversation.exact
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]


async def test_a_callable_that_wants_more_is_refused() -> None:
    with pytest.raises(DefinitionError, match="model_options"):
        Agent("a", model=ScriptedModel("x"), instructions="", model_options=lambda first, second: {})  # type: ignore[arg-type]
