"""The port to session stores, the JSON that stores keep, and a store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from durably.core.errors import DurablyError, SerializationError
from durably.core.ids import check_session_key
from durably.core.messages import SessionEntry
from durably.core.serialization import codec_for

__all__ = ["MemorySessions", "SessionError", "SessionStore", "damaged", "messages_from_json", "messages_to_json"]


class SessionError(DurablyError):
    """A session cannot be read or written: its file is damaged or belongs to another program."""


@runtime_checkable
class SessionStore(Protocol):
    """Keeps the messages of each session in order, with the library's notes between them."""

    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        """Add messages at the end, all or none. A known key adds nothing.

        Args:
            session_key: The session.
            messages: The messages, in order.
            key: Identifies this append. In a step pass ``current_step().idempotency_key``: the step may run again after
                a crash, and must not add the messages a second time.

        Raises:
            TypeError: If the session key is not a text.
            ValueError: If it is not 1 to 200 printable characters. What was written before under another one can still
                be read.
        """
        ...

    async def load(self, session_key: str) -> list[SessionEntry]:
        """Return all entries of a session, oldest first. An unknown session is empty."""
        ...


class MemorySessions:
    """Keeps sessions in memory, for tests and scripts."""

    def __init__(self) -> None:
        self._appends: dict[str, list[list[SessionEntry]]] = {}
        self._keys: set[tuple[str, str]] = set()

    def copy(self) -> MemorySessions:
        """Return an independent store with the same sessions."""
        copy = MemorySessions()
        copy._appends = {session: list(appends) for session, appends in self._appends.items()}
        copy._keys = set(self._keys)
        return copy

    async def delete(self, session_key: str) -> None:
        """Delete a session. A live run that has read it fails."""
        self._appends.pop(session_key, None)
        self._keys = {each for each in self._keys if each[0] != session_key}

    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        """See :meth:`SessionStore.append`."""
        check_session_key(session_key)
        if (session_key, key) not in self._keys:
            self._keys.add((session_key, key))
            self._appends.setdefault(session_key, []).append(list(messages))

    async def load(self, session_key: str) -> list[SessionEntry]:
        """See :meth:`SessionStore.load`."""
        return [message for append in self._appends.get(session_key, ()) for message in append]

    async def load_appends(self, session_key: str, after: int = 0) -> list[list[SessionEntry]]:
        """See :meth:`AppendLog.load_appends`."""
        return [list(append) for append in self._appends.get(session_key, [])[after:]]


_MESSAGES = codec_for(list[SessionEntry])


def messages_to_json(messages: Sequence[SessionEntry]) -> str:
    """Return the JSON text of one append, without line breaks."""
    return _MESSAGES.encode(list(messages), step="")


def messages_from_json(text: str, *, where: str) -> list[SessionEntry]:
    """Read the messages of one append.

    Args:
        text: The JSON text.
        where: The place of the text, which an error names.

    Raises:
        SessionError: If the text is not what was written.
    """
    try:
        messages: list[SessionEntry] = _MESSAGES.decode(text, step="")
    except SerializationError as error:
        lines = str(error.__cause__ or error).splitlines()
        raise damaged(where, "; ".join(line.strip() for line in lines[:3])) from error
    return messages


def damaged(where: str, reason: str) -> SessionError:
    """Return the error for a place that does not hold what was written there."""
    return SessionError(
        f"{where} is damaged: the file was changed outside durably, or the disk is failing; restore it from a backup "
        f"({reason})"
    )
