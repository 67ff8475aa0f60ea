"""The agent that every benchmark runs: one tool call a turn, with a result of a given size."""

from __future__ import annotations

from durably.core import Agent, Tool, tool
from durably.core.messages import AssistantMessage, ToolCall
from durably.core.model import ModelResponse, Usage
from durably.testing import ScriptedModel

MESSAGE = "Look up every order."


def script(turns: int) -> ScriptedModel:
    """A model that calls the tool once a turn, then answers. Its calls are made in advance: no engine adds to that."""
    return ScriptedModel(*map(_call, range(turns)), "All looked up.")


def _call(turn: int) -> ModelResponse:
    asked = ToolCall(id=f"call_{turn}_0", name="get_order", arguments={"order_id": str(turn)})
    usage = Usage(input_tokens=10, output_tokens=5)
    return ModelResponse(message=AssistantMessage(parts=[asked]), usage=usage, stop_reason="tool_calls")


def order_tool(size: int) -> Tool:
    """A tool whose result has this many characters."""
    result = "x" * size

    @tool(effect="pure")
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        return result

    return get_order


def order_agent(turns: int, size: int) -> Agent:
    """The agent on durably."""
    return Agent(
        "orders",
        model=script(turns),
        instructions="You are brief.",
        tools=[order_tool(size)],
        max_iterations=turns + 1,
    )
