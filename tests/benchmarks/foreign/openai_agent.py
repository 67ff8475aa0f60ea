"""The same agent on OpenAI Agents with a SQLite session. Only `make bench` installs it."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage, function_tool
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from durably.testing.foreign import model_asked, watched
from tests.benchmarks.foreign.world import ANSWER, INSTRUCTIONS, QUESTION, bank, look_up, next_calls, post

__all__ = ["ENGINE", "resume", "start"]

ENGINE = "OpenAI Agents, SQLite session"


class Scripted(Model):
    """The model of the test."""

    async def get_response(
        self, system_instructions: str | None, input: str | list[Any], *args: Any, **options: Any
    ) -> ModelResponse:
        items = [] if isinstance(input, str) else input
        kinds = {"function_call": "call", "function_call_output": "result"}
        turns: Any = [(kinds[each["type"]], each["call_id"]) for each in items if each.get("type") in kinds]
        model_asked(turns)
        results = {call_id for kind, call_id in turns if kind == "result"}
        asked = next_calls(min(2, len(results)))
        output: list[Any] = [
            ResponseFunctionToolCall(type="function_call", name=name, call_id=call_id, arguments='{"order_id": "7"}')
            for name, call_id in asked
        ]
        if not asked:
            text = ResponseOutputText(type="output_text", text=ANSWER, annotations=[])
            output = [
                ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])
            ]
        return ModelResponse(output=output, usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("nothing is streamed here")


async def converse(folder: Path, message: str | list[Any]) -> str:
    """Run the agent with the session of the folder."""

    @function_tool
    @watched
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        return look_up(order_id)

    @function_tool
    @watched(by=["order_id"])
    async def refund(context: ToolContext[Any], order_id: str) -> str:
        """Pay the money back."""
        bank(folder).request(order_id, context.tool_call_id)
        return "refunded"

    @function_tool
    @watched(by=["order_id"])
    async def send_mail(context: ToolContext[Any], order_id: str) -> str:
        """Write to the customer."""
        post(folder).request(order_id, context.tool_call_id)
        return "sent"

    agent = Agent("desk", instructions=INSTRUCTIONS, model=Scripted(), tools=[get_order, refund, send_mail])
    session = SQLiteSession("run-1", folder / "session.db")
    try:
        result = await Runner.run(agent, message, session=session, run_config=RunConfig(tracing_disabled=True))
    finally:
        session.close()
    return str(result.final_output)


async def start(folder: Path) -> str:
    """Say the first message."""
    return await converse(folder, QUESTION)


async def resume(folder: Path) -> str:
    """Go on from what the session holds: with no new message, unless it is empty."""
    session = SQLiteSession("run-1", folder / "session.db")
    try:
        known = await session.get_items()
    finally:
        session.close()
    return await converse(folder, [] if known else QUESTION)
