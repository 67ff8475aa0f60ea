"""The agent that answers: it looks up orders, and a person must agree before it refunds one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from durably.core import Agent, Model, SessionStore, current_step, tool
from durably.core.messages import AssistantMessage, TextPart, ToolCall, ToolResultMessage, UserMessage
from durably.core.model import Delta, ModelRequest, ModelResponse, Usage

__all__ = ["StandIn", "support"]


class StandIn:
    """A model that answers from a script, and writes its answer word by word."""

    name = "stand-in:words"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        usage = Usage(input_tokens=50 * len(request.messages), output_tokens=20)
        last = request.messages[-1]
        said = last.content if isinstance(last, UserMessage | ToolResultMessage) else ""
        if isinstance(last, UserMessage) and "refund" in str(said).lower():
            parts = [ToolCall(id=f"refund-{request.turn}", name="refund", arguments={"order": 7, "euros": 20})]
            return ModelResponse(message=AssistantMessage(parts=list(parts)), usage=usage)
        text = f"You said: {said}" if isinstance(last, UserMessage) else f"The desk says: {said}"
        return ModelResponse(message=AssistantMessage(parts=[TextPart(text=text)]), usage=usage)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        answer = await self.complete(request)
        for word in answer.message.text.split(" "):
            yield Delta(kind="text", text=f"{word} ")
        yield answer


@tool(requires_approval=True, approval_timeout="1 day", effect="idempotent")
async def refund(order: int, euros: int) -> str:
    """Refund a part of an order.

    Args:
        order: The order's number.
        euros: How much.
    """
    # The key is the same if this runs again after a crash: the books hold each refund once.
    books: Path = current_step().resources["books"]
    (books / current_step().idempotency_key).write_text(f"order {order}: {euros} euros")
    return f"{euros} euros of order {order} were refunded"


def support(model: Model | None = None, sessions: SessionStore | Literal["backend"] = "backend") -> Agent:
    """Return the agent.

    Args:
        model: What it asks; left out, the stand-in.
        sessions: Where it keeps its chats; left out, beside its runs.
    """
    return Agent(
        "support",
        model=model or StandIn(),
        instructions="You help the customers of a shop. Be brief.",
        tools=[refund],
        sessions=sessions,
        on_message="steer",
        stream=True,
    )
