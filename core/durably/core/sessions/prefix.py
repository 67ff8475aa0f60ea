"""What a run has read of its session: how far, and a digest of it, instead of the messages once more.

A record of the messages themselves would make every run of a session as large as all runs before it. Whoever needs the
messages reads the session again up to the same place, and the digest says whether they are still the same.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from durably.core.compaction import summary_message
from durably.core.messages import (
    AssistantMessage,
    Message,
    SessionEntry,
    SessionNote,
    SessionPrefix,
    ToolResultMessage,
    UserMessage,
)
from durably.core.serialization import digest
from durably.core.sessions.joining import joined
from durably.core.sessions.store import SessionError, SessionStore

__all__ = ["AppendLog", "SessionReader"]

CACHED_MESSAGES = 50_000
"""How many messages of sessions one reader keeps in memory."""


@runtime_checkable
class AppendLog(Protocol):
    """A session store that can be read from a place on, so that a long session is not read whole for each run."""

    async def load_appends(self, session_key: str, after: int = 0) -> Sequence[Sequence[SessionEntry]]:
        """Return what was appended, oldest first: the entries of each append.

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
        self._summaries: list[tuple[int, SessionNote]] = []
        self._answered: dict[str, tuple[int, str]] = {}
        # What nothing that comes later can change is put together once: a run of a long session does not do it again.
        self._joined: list[Message] = []
        self._settled = [(0, 0)]
        self._open: Counter[str] = Counter()

    def add(self, append: Sequence[SessionEntry]) -> None:
        turns = self.turns[-1]
        for entry in append:
            if isinstance(entry, SessionNote):
                self._note(entry)
                continue
            self.messages.append(entry)
            turns += isinstance(entry, AssistantMessage)
            self._count_calls(entry)
        self.ends.append(len(self.messages))
        self.turns.append(turns)
        self.digests.append(_digest(self.digests[-1], append))
        self._settle()

    @property
    def appends(self) -> int:
        return len(self.ends) - 1

    def has(self, prefix: SessionPrefix) -> bool:
        return prefix.appends <= self.appends and self.digests[prefix.appends] == prefix.digest

    def answer_to(self, run_id: str, appends: int) -> str | None:
        """What another run answered to the message of this one, within the first appends."""
        place, text = self._answered.get(run_id, (appends, ""))
        return text if place < appends else None

    def joined(self, appends: int, now: Sequence[Message]) -> list[Message]:
        """The first appends, or the summary that stands for them, and the messages of a run."""
        end = self.ends[appends]
        summary = next((note for place, note in reversed(self._summaries) if place < appends), None)
        if summary is not None:
            return joined(
                [summary_message(summary.summary or ""), *self.messages[self.ends[summary.appends] : end]], now
            )
        read, length = self._settled[appends]
        found = self._joined[:length]
        found += joined(self.messages[read:end], now)
        return found

    def _note(self, note: SessionNote) -> None:
        if note.summary is not None and note.appends <= self.appends:
            self._summaries.append((self.appends, note))
        for run_id in note.answered:
            last = next((each.text for each in reversed(self.messages) if isinstance(each, AssistantMessage)), "")
            self._answered[run_id] = (self.appends, last)

    def _count_calls(self, message: Message) -> None:
        if isinstance(message, AssistantMessage):
            self._open.update(call.id for call in message.tool_calls)
        elif isinstance(message, ToolResultMessage) and self._open[message.call_id]:
            self._open[message.call_id] -= 1

    def _settle(self) -> None:
        read, length = self._settled[-1]
        self._open = +self._open
        found = [] if self._open else joined(self.messages[read:], [])
        if found and not isinstance(found[-1], UserMessage):  # else the next user message becomes one with it
            self._joined += found
            read, length = len(self.messages), len(self._joined)
        self._settled.append((read, length))


def _digest(before: str, append: Iterable[SessionEntry]) -> str:
    return digest(before + "".join(entry.model_dump_json() for entry in append))


class SessionReader:
    """Reads the sessions of one store, and of a session that it knows only what is new.

    Args:
        store: The store. One that is no :class:`AppendLog` is read whole each time.
    """

    def __init__(self, store: SessionStore) -> None:
        self.store = store
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
        """The messages that a run has read, those too that a summary stands for.

        Raises:
            SessionError: If the session holds others now.
        """
        session = await self._at(prefix)
        return session.messages[: session.ends[prefix.appends]]

    async def joined(self, prefix: SessionPrefix, now: Sequence[Message]) -> list[Message]:
        """What a run has read, or the last summary of it and what follows that, and the messages of the run.

        Args:
            prefix: How far the run has read.
            now: Its messages; the first one is the message it answers.

        Raises:
            SessionError: If the session holds others now.
        """
        return (await self._at(prefix)).joined(prefix.appends, now)

    async def answer_to(self, run_id: str, prefix: SessionPrefix) -> str | None:
        """The answer of another run that took up the message of this one, or ``None``.

        Raises:
            SessionError: If the session holds others now.
        """
        return (await self._at(prefix)).answer_to(run_id, prefix.appends)

    async def _at(self, prefix: SessionPrefix) -> _Session:
        known = self._known.get(prefix.session_key)
        session = known if known is not None and known.has(prefix) else await self._session(prefix.session_key)
        if not session.has(prefix):
            raise SessionError(
                f"session {prefix.session_key!r} is not what this run has read: its first {prefix.appends} appends "
                "were changed or deleted since. Restore the session, or start the run again"
            )
        return session

    async def _session(self, session_key: str) -> _Session:
        """A session as it is now."""
        if not isinstance(self.store, AppendLog):
            session = _Session()
            for entry in await self.store.load(session_key):
                session.add([entry])
            return session
        known = self._known.pop(session_key, None) or _Session()
        # The last append that is known is read again: if it is another one, the session was deleted and begun anew.
        overlap = min(1, known.appends)
        news = await self.store.load_appends(session_key, known.appends - overlap)
        if overlap and (not news or _digest(known.digests[-2], news[0]) != known.digests[-1]):
            known, overlap = _Session(), 0
            news = await self.store.load_appends(session_key)
        for append in news[overlap:]:
            known.add(append)
        self._keep(session_key, known)
        return known

    def _keep(self, session_key: str, session: _Session) -> None:
        self._known[session_key] = session
        while len(self._known) > 1 and sum(len(each.messages) for each in self._known.values()) > CACHED_MESSAGES:
            self._known.popitem(last=False)
