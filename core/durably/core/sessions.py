"""The port to conversations that outlive a run, and a store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from durably.core.messages import Message

__all__ = ["MemorySessions", "SessionStore"]


@runtime_checkable
class SessionStore(Protocol):
    """Keeps the messages of each session, in order."""

    async def append(self, session_key: str, messages: Sequence[Message], *, key: str) -> None:
        """Add messages at the end, once for each ``key``: a repeated key adds nothing."""
        ...

    async def load(self, session_key: str) -> list[Message]:
        """All messages of a session, oldest first; none for a session nobody wrote to."""
        ...


class MemorySessions:
    """Sessions that live as long as the program, for tests and scripts."""

    def __init__(self) -> None:
        self._messages: dict[str, list[Message]] = {}
        self._keys: set[tuple[str, str]] = set()

    async def append(self, session_key: str, messages: Sequence[Message], *, key: str) -> None:
        """See :meth:`SessionStore.append`."""
        if (session_key, key) not in self._keys:
            self._keys.add((session_key, key))
            self._messages.setdefault(session_key, []).extend(messages)

    async def load(self, session_key: str) -> list[Message]:
        """See :meth:`SessionStore.load`."""
        return list(self._messages.get(session_key, ()))
