"""Mutants of C34: sessions that keep something twice, and messages that nobody takes up."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.core import MemorySessions
from durably.core.ids import new_id
from durably.core.messages import SessionEntry
from durably.core.services import WaitingRun
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


class _Forgetful(MemorySessions):
    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        await super().append(session_key, messages, key=new_id())


@mutant("C34")
class SaidTwice(MemoryJournal):
    """What a step saved before a crash is saved again after it."""

    def __init__(self) -> None:
        super().__init__()
        self._sessions = self.sessions = _Forgetful()


@mutant("C34")
class MessagesOverlooked(MemoryBackend):
    """A live run does not see which messages wait behind it."""

    async def _waiting(self, run_id: str, known: Collection[str]) -> list[WaitingRun]:
        return []


@mutant("C34")
class MessagesTakenUpAgain(MemoryBackend):
    """A live run takes up a message at each of its turns."""

    async def _waiting(self, run_id: str, known: Collection[str]) -> list[WaitingRun]:
        return await super()._waiting(run_id, ())
