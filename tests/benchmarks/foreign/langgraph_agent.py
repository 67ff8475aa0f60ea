"""The same agent on LangGraph's prebuilt agent with its SQLite saver, in sync mode. Only `make bench` installs it."""

# pyright: reportMissingImports=false

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.prebuilt import create_react_agent

from durably.testing.foreign import model_asked, watched
from tests.benchmarks.foreign.world import ANSWER, INSTRUCTIONS, QUESTION, bank, look_up, next_calls, post
from tests.benchmarks.langgraph_parts import Scripted, call_of, sqlite_saver, turns_taken

__all__ = ["ENGINE", "resume", "start"]

ENGINE = "LangGraph, SQLite saver"

CallId = Annotated[str, InjectedToolCallId]


def reply(messages: list[Any]) -> AIMessage:
    """The model of the test."""
    turns: list[Any] = []
    for message in messages:
        if isinstance(message, AIMessage):
            turns += [("call", call["id"]) for call in message.tool_calls]
        elif isinstance(message, ToolMessage):
            turns.append(("result", message.tool_call_id))
    model_asked(turns)
    calls = [call_of(name, "7", call_id) for name, call_id in next_calls(turns_taken(messages))]
    return AIMessage("" if calls else ANSWER, tool_calls=calls)


async def start(folder: Path) -> str:
    """Begin a thread, or go on with it from its last checkpoint."""

    @tool
    @watched
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        return look_up(order_id)

    @tool
    @watched(by=["order_id"])
    async def refund(order_id: str, call_id: CallId) -> str:
        """Pay the money back."""
        bank(folder).request(order_id, call_id)
        return "refunded"

    @tool
    @watched(by=["order_id"])
    async def send_mail(order_id: str, call_id: CallId) -> str:
        """Write to the customer."""
        post(folder).request(order_id, call_id)
        return "sent"

    warnings.simplefilter("ignore")
    async with sqlite_saver(folder / "checkpoints.db") as saver:
        tools = [get_order, refund, send_mail]
        graph = create_react_agent(Scripted(reply=reply), tools, prompt=INSTRUCTIONS, checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "1"}}
        known = await graph.aget_state(config)
        message = None if known.created_at else {"messages": [("user", QUESTION)]}
        result = await graph.ainvoke(message, config, durability="sync")
        return str(result["messages"][-1].content)


resume = start
