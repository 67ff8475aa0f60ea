"""The same agent on durably, on SQLite, looked at from outside as the others are."""

from __future__ import annotations

from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import Agent, current_step, tool
from durably.core.messages import AssistantMessage, AssistantPart, ToolCall, ToolResultMessage
from durably.core.model import ModelRequest, ModelResponse
from durably.testing import ScriptedModel
from durably.testing.foreign import model_asked, watched
from tests.benchmarks.foreign.world import ANSWER, INSTRUCTIONS, QUESTION, bank, look_up, next_calls, post

__all__ = ["ENGINE", "resume", "start"]

ENGINE = "durably, SQLite"


def answer(request: ModelRequest) -> str | ModelResponse:
    """The model of the test."""
    turns = []
    for message in request.messages:
        if isinstance(message, AssistantMessage):
            turns += [("call", part.id) for part in message.parts if isinstance(part, ToolCall)]
        elif isinstance(message, ToolResultMessage):
            turns += [("result", message.call_id)]
    model_asked(turns)
    calls: list[AssistantPart] = [
        ToolCall(id=call_id, name=name, arguments={"order_id": "7"}) for name, call_id in next_calls(request.turn)
    ]
    if not calls:
        return ANSWER
    return ModelResponse(message=AssistantMessage(parts=calls), stop_reason="tool_calls")


def agent_in(folder: Path) -> Agent:
    """The agent, whose world is in a folder."""

    @tool(effect="pure")
    @watched
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        return look_up(order_id)

    @tool
    @watched
    async def refund(order_id: str) -> str:
        """Pay the money back."""
        bank(folder).request(order_id, current_step().idempotency_key)
        return "refunded"

    @tool
    @watched
    async def send_mail(order_id: str) -> str:
        """Write to the customer."""
        post(folder).request(order_id, current_step().idempotency_key)
        return "sent"

    return Agent("desk", model=ScriptedModel(answer), instructions=INSTRUCTIONS, tools=[get_order, refund, send_mail])


async def start(folder: Path) -> str:
    """Begin a run, or attach to it."""
    agent = agent_in(folder)
    async with SQLiteBackend(folder / "runs.db", [agent]) as backend:
        return (await backend.invoke(agent, QUESTION, run_id="run-1")).text


resume = start
