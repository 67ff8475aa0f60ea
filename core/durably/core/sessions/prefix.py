"""What a run has read of its session: how far, and a digest of it, instead of the messages once more.

A record of the messages themselves would make every run of a session as large as all runs before it. Whoever needs the
messages reads the session again up to the same place, and the digest says whether they are still the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from durably.core.messages import (
    AssistantMessage,
    ContentPart,
    Message,
    SessionPrefix,
    TextPart,
    ToolResultMessage,
    UserMessage,
)
from durably.core.serialization import digest
from durably.core.sessions.store import SessionError, SessionStore

__all__ = ["AppendLog", "SessionReader", "joined"]

CACHED_MESSAGES = 50_000
"""How many messages of sessions one reader keeps in memory."""

INTERRUPTED = "(This call was cut off before it was answered. It may or may not have had its effect.)"


@runtime_checkable
class AppendLog(Protocol):
    """A session store that can be read from a place on, so that a long session is not read whole for each run."""

    async def load_appends(self, session_key: str, after: int = 0) -> list[list[Message]]:
        """Return what was appended, oldest first: the messages of each append.

        Args:
            session_key: The session.
            after: How many appends to leave out at the beginning.
        """
        ...


class _Session:
    """A session as far as it was read, and where each of its appends ends."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ends = [0]
        self.turns = [0]
        self.digests = [digest("")]

    def add(self, append: Sequence[Message]) -> None:
        self.messages += append
        self.ends.append(len(self.messages))
        self.turns.append(self.turns[-1] + sum(message.role == "assistant" for message in append))
        self.digests.append(_digest(self.digests[-1], append))

    @property
    def appends(self) -> int:
        return len(self.ends) - 1

    def has(self, prefix: SessionPrefix) -> bool:
        return prefix.appends <= self.appends and self.digests[prefix.appends] == prefix.digest


def _digest(before: str, append: Iterable[Message]) -> str:
    return digest(before + "".join(message.model_dump_json() for message in append))


class SessionReader:
    """Reads the sessions of one store, and of a session that it knows only what is new.

    Args:
        store: The store. One that is no :class:`AppendLog` is read whole each time.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._known: OrderedDict[str, _Session] = OrderedDict()

    async def read(self, session_key: str) -> SessionPrefix:
        """Read a session to its end."""
        session = await self._session(session_key)
        return SessionPrefix(
            session_key=session_key,
            appends=session.appends,
            digest=session.digests[-1],
            turns=session.turns[-1],
        )

    async def messages(self, prefix: SessionPrefix) -> list[Message]:
        """The messages that a run has read.

        Raises:
            SessionError: If the session holds others now.
        """
        known = self._known.get(prefix.session_key)
        session = known if known is not None and known.has(prefix) else await self._session(prefix.session_key)
        if not session.has(prefix):
            raise SessionError(
                f"session {prefix.session_key!r} is not what this run has read: its first {prefix.appends} appends "
                "were changed or deleted since. Restore the session, or start the run again"
            )
        return session.messages[: session.ends[prefix.appends]]

    async def _session(self, session_key: str) -> _Session:
        """A session as it is now."""
        if not isinstance(self._store, AppendLog):
            session = _Session()
            for message in await self._store.load(session_key):
                session.add([message])
            return session
        known = self._known.pop(session_key, None) or _Session()
        # The last append that is known is read again: if it is another one, the session was deleted and begun anew.
        overlap = min(1, known.appends)
        news = await self._store.load_appends(session_key, known.appends - overlap)
        if overlap and (not news or _digest(known.digests[-2], news[0]) != known.digests[-1]):
            known, overlap = _Session(), 0
            news = await self._store.load_appends(session_key)
        for append in news[overlap:]:
            known.add(append)
        self._keep(session_key, known)
        return known

    def _keep(self, session_key: str, session: _Session) -> None:
        self._known[session_key] = session
        while len(self._known) > 1 and sum(len(each.messages) for each in self._known.values()) > CACHED_MESSAGES:
            self._known.popitem(last=False)


def joined(before: Sequence[Message], now: Sequence[Message]) -> list[Message]:
    """A session and the messages of a run, as every provider takes them.

    Each call is followed by its answer: one that was saved later is moved there, and one that is missing, because its
    run was cancelled or failed, is said to be. Answers without a call are left out. User messages that follow each
    other become one, and a message that was saved before the run began does not stand there twice.

    Args:
        before: The messages of the session.
        now: The messages of the run; the first one is the message it answers.
    """
    if before and now and before[-1] == now[0]:
        before = before[:-1]
    closed = _closed(before)
    if closed and now and isinstance(closed[-1], UserMessage) and isinstance(now[0], UserMessage):
        return [*closed[:-1], _merged(closed[-1], now[0]), *now[1:]]
    return [*closed, *now]


def _closed(messages: Sequence[Message]) -> list[Message]:
    answers: dict[str, list[tuple[int, ToolResultMessage]]] = {}
    for position, message in enumerate(messages):
        if isinstance(message, ToolResultMessage):
            answers.setdefault(message.call_id, []).append((position, message))
    closed: list[Message] = []
    for position, message in enumerate(messages):
        if isinstance(message, ToolResultMessage):
            continue
        if isinstance(message, UserMessage) and closed and isinstance(closed[-1], UserMessage):
            closed[-1] = _merged(closed[-1], message)
            continue
        closed.append(message)
        if isinstance(message, AssistantMessage):
            for call in message.tool_calls:
                # An id may be used again, turns later: each call takes the first answer after it that is left.
                later = answers.get(call.id, [])
                found = next((each for each in later if each[0] > position), None)
                if found is not None:
                    later.remove(found)
                    closed.append(found[1])
                else:
                    closed.append(
                        ToolResultMessage(call_id=call.id, name=call.name, content=INTERRUPTED, is_error=True)
                    )
    return closed


def _merged(one: UserMessage, other: UserMessage) -> UserMessage:
    if isinstance(one.content, str) and isinstance(other.content, str):
        return UserMessage(content=f"{one.content}\n\n{other.content}")
    return UserMessage(content=[*_parts(one), *_parts(other)])


def _parts(message: UserMessage) -> list[ContentPart]:
    return [TextPart(text=message.content)] if isinstance(message.content, str) else list(message.content)
