"""The same agent on LangGraph, with its prebuilt loop and its own checkpointers. Only `make bench` installs it."""

# pyright: reportMissingImports=false

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.prebuilt import create_react_agent

from tests.benchmarks.agent import MESSAGE


class Scripted(BaseChatModel):
    """A model that calls the tool once a turn, then answers."""

    turns: int

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        turn = sum(message.type == "ai" for message in messages)
        call = {"name": "get_order", "args": {"order_id": str(turn)}, "id": f"call_{turn}"}
        said = AIMessage("All looked up.") if turn == self.turns else AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=said)])

    async def _agenerate(self, *args: Any, **options: Any) -> ChatResult:
        return self._generate(*args, **options)


async def _run(turns: int, size: int, saver: Any, **options: Any) -> float:
    result = "x" * size

    @tool
    async def get_order(order_id: str) -> str:
        """Look up one order."""
        return result

    graph = create_react_agent(Scripted(turns=turns), [get_order], prompt="You are brief.", checkpointer=saver)
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
    async with AsyncSqliteSaver.from_conn_string(str(directory / "checkpoints.db")) as saver:
        await saver.setup()
        await saver.conn.execute("PRAGMA synchronous = FULL")
        return await _run(turns, size, saver, durability="sync")
