"""Options of the model that depend on the run: chosen once, recorded, and seen by the trace."""

from __future__ import annotations

from typing import Any

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, AgentInput, DefinitionError, ToolContext, Trace, tool
from durably.testing import ScriptedModel, call, crash_matrix

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


class World:
    """What was chosen for the runs of one cell."""

    def __init__(self) -> None:
        self.chosen = 0
        self.model = ScriptedModel(call("look"), "done")
        self.agent = Agent(
            "chooser", model=self.model, instructions="", tools=[look], model_options=self.choose, retries=1
        )

    async def choose(self) -> dict[str, Any]:
        self.chosen += 1
        return {"seed": 7}


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_no_crash_chooses_anew_what_was_recorded(backend: str) -> None:
    worlds: list[World] = []

    def build() -> tuple[Agent, World]:
        worlds.append(World())
        return worlds[-1].agent, worlds[-1]

    points = "*" if backend == "memory" else "load-options/*"
    report = await crash_matrix(build, "?", backend=backend, points=points)
    assert report.ok, report
    used = [world for world in worlds if world.model.requests]
    chosen = dict(zip((cell.label for cell in report.cells), used[-len(report.cells) :], strict=True))
    assert {"load-options/before_body", "load-options/after_effect", "load-options/after_commit"} <= set(chosen)
    for label, world in chosen.items():
        assert world.chosen == (2 if label == "load-options/after_effect" else 1), label
        assert all(request.options == {"seed": 7} for request in world.model.requests)
