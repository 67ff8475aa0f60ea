"""The same agent on LangGraph, with its prebuilt loop and its own checkpointers. Only `make bench` installs it."""

# pyright: reportMissingImports=false

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import create_react_agent

from tests.benchmarks.agent import MESSAGE
from tests.benchmarks.langgraph_parts import Scripted, call_of, sqlite_saver, turns_taken


async def _run(turns: int, size: int, saver: Any, **options: Any) -> float:
    result = "x" * size

    @tool
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        return result

    def reply(messages: list[Any]) -> AIMessage:
        turn = turns_taken(messages)
        if turn == turns:
            return AIMessage("All looked up.")
        return AIMessage("", tool_calls=[call_of("get_order", str(turn), f"call_{turn}")])

    graph = create_react_agent(Scripted(reply=reply), [get_order], prompt="You are brief.", checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": 10**6}
    start = time.perf_counter()
    state = await graph.ainvoke({"messages": [("user", MESSAGE)]}, config, **options)
    took = time.perf_counter() - start
    assert state["messages"][-1].content == "All looked up."
    return took


async def langgraph_memory(turns: int, size: int, directory: Path) -> float:
    """With checkpoints in memory."""
    return await _run(turns, size, InMemorySaver())


async def langgraph_sqlite(turns: int, size: int, directory: Path) -> float:
    """With checkpoints in a file, written before the next step begins."""
    async with sqlite_saver(directory / "checkpoints.db") as saver:
        return await _run(turns, size, saver, durability="sync")
