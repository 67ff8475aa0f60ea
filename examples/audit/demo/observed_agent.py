"""An agent under observation: every body writes into a ledger when it starts. The agent itself knows nothing of it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from durably.core import Agent, Model, SessionStore, Tool, current_step
from durably.core.messages import SessionEntry
from durably.core.model import ModelRequest, ModelResponse
from durably.testing import EffectLedger

__all__ = ["observed"]


class _Observer:
    """Notes that a body starts.

    Args:
        ledger: Where.
    """

    def __init__(self, ledger: EffectLedger) -> None:
        self._ledger = ledger

    def body_started(self) -> None:
        self._ledger.body_started()
        current_step().heartbeat()  # so that every body, however short, passes a point at which it can be killed

    def tool(self, tool: Tool) -> Tool:
        @functools.wraps(tool.fn)
        def fn(**arguments: Any) -> Any:
            self.body_started()
            return tool.fn(**arguments)

        return replace(tool, fn=fn)

    def instructions(self, instructions: str | Callable[..., Any]) -> Callable[[], Any]:
        async def load() -> str:
            self.body_started()
            made = instructions if isinstance(instructions, str) else instructions()
            text: str = await made if inspect.isawaitable(made) else made
            return text

        return load


class _ObservedModel:
    """A model that takes its time where a person is to follow.

    Args:
        model: The model that answers.
        observer: Is told of each call.
        pace: Seconds each call takes at least.
    """

    def __init__(self, model: Model, observer: _Observer, pace: float) -> None:
        self._model = model
        self._observer = observer
        self._pace = pace

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, request: ModelRequest) -> ModelResponse:
        self._observer.body_started()
        await asyncio.sleep(self._pace)
        return await self._model.complete(request)


class _ObservedSessions:
    """A store of conversations.

    Args:
        sessions: Where they are kept.
        observer: Is told of each call.
    """

    def __init__(self, sessions: SessionStore, observer: _Observer) -> None:
        self._sessions = sessions
        self._observer = observer

    async def load(self, session_key: str) -> list[SessionEntry]:
        if current_step().key == "load-history":  # a turn reads the session again, as a part of its own step
            self._observer.body_started()
        return await self._sessions.load(session_key)

    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        self._observer.body_started()
        await self._sessions.append(session_key, messages, key=key)


def observed(agent: Agent, ledger: EffectLedger, *, pace: float = 0.0) -> Agent:
    """Returns the same agent, made of parts that write into a ledger before they do anything else.

    Args:
        agent: The agent. Its tools are sync functions, and it has a session store.
        ledger: Where every body notes that it starts.
        pace: Seconds each model call takes at least.
    """
    observer = _Observer(ledger)
    assert isinstance(agent.sessions, SessionStore)
    return Agent(
        agent.name,
        model=_ObservedModel(agent.model, observer, pace),
        instructions=observer.instructions(agent.instructions),
        tools=[observer.tool(each) for each in agent.tools.values()],
        sessions=_ObservedSessions(agent.sessions, observer),
        max_iterations=agent.max_iterations,
    )
