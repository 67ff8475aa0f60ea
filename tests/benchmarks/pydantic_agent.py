"""The same agent on pydantic-ai, made durable by its own Temporal plugin, with its defaults.

Only `make bench` installs pydantic-ai; the type checkers look at this file without it as well.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from pydantic_ai import Agent, ModelMessage, ModelResponse, TextPart, ToolCallPart, UsageLimits, UserPromptPart
from pydantic_ai.durable_exec.temporal import AgentPlugin, PydanticAIPlugin, TemporalDurability
from pydantic_ai.models.function import AgentInfo, FunctionModel
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """What a scripted model answers. The question says how many turns, and how long a result is."""
    [question] = [part.content for part in messages[0].parts if isinstance(part, UserPromptPart)]
    turns, size = map(int, str(question).split())
    turn = sum(isinstance(each, ModelResponse) for each in messages)
    if turn == turns:
        return ModelResponse(parts=[TextPart("All looked up.")])
    return ModelResponse(parts=[ToolCallPart("get_order", {"order_id": str(turn), "size": size}, f"call_{turn}_0")])


async def get_order(order_id: str, size: int) -> str:
    """Look up one order."""
    return "x" * size


orders = Agent(
    FunctionModel(answer),
    name="orders",
    instructions="You are brief.",
    capabilities=[TemporalDurability()],
    tools=[get_order],
)


@workflow.defn
class Orders:
    """The agent, as a workflow."""

    @workflow.run
    async def run(self, message: str) -> str:
        """Ask it."""
        result = await orders.run(message, usage_limits=UsageLimits(request_limit=None))
        return str(result.output)


@asynccontextmanager
async def open_pydantic_ai(client: Client) -> AsyncIterator[Any]:
    """A worker; yields what runs the agent on it and returns the run's id."""
    queue = uuid4().hex
    connected = await Client.connect(
        client.service_client.config.target_host,
        runtime=client.service_client.config.runtime,
        plugins=[PydanticAIPlugin()],
    )
    async with Worker(connected, task_queue=queue, workflows=[Orders], plugins=[AgentPlugin(orders)]):

        async def run(turns: int, size: int) -> str:
            run_id = uuid4().hex
            await connected.execute_workflow(Orders.run, f"{turns} {size}", id=run_id, task_queue=queue)
            return run_id

        yield run
