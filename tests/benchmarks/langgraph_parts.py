"""What every agent on LangGraph here is made of: a model with a script, and a saver that waits for the disk.

Only `make bench` installs LangGraph.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

__all__ = ["Scripted", "call_of", "sqlite_saver", "turns_taken"]


class Scripted(BaseChatModel):
    """A model that answers as it is told.

    Args:
        reply: Gives the answer to a conversation.
    """

    reply: Callable[[list[Any]], Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.reply(messages))])

    async def _agenerate(self, *args: Any, **options: Any) -> ChatResult:
        return self._generate(*args, **options)


def turns_taken(messages: list[BaseMessage]) -> int:
    """How often the model has answered."""
    return sum(isinstance(message, AIMessage) for message in messages)


def call_of(tool: str, order_id: str, call_id: str) -> dict[str, Any]:
    """A call of a tool, as an answer has it."""
    return {"name": tool, "args": {"order_id": order_id}, "id": call_id}


@asynccontextmanager
async def sqlite_saver(path: Path) -> AsyncIterator[Any]:
    """Checkpoints in a file, which survive a power cut."""
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.setup()
        await saver.conn.execute("PRAGMA synchronous = FULL")
        yield saver
