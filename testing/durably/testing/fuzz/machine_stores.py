"""The stores that programs are put through faults on: what outlives their workers, in memory or in a SQLite file."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from durably.backends.memory import MemoryBackend
from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.journal import Journal
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.backends.sqlite import SQLiteBackend
from durably.backends.sqlite_deltas import SQLiteDeltas
from durably.core import Function
from durably.core.deltas import StoredDelta
from durably.testing.fuzz.faults import FaultyJournal, FaultySQLiteJournal, Refusals
from durably.testing.fuzz.stored_pieces import stored_pieces
from durably.testing.snapshot import Snapshot

__all__ = ["Evict", "MachineStore", "MemoryStore", "SQLiteStore"]

Evict = Literal["never", "always"]


class MachineStore(ABC):
    """A store, empty at first, and one clock for all its workers.

    Attributes:
        clock: The clock.
    """

    def __init__(self) -> None:
        self.clock = VirtualClock()

    @abstractmethod
    def open(self, functions: Sequence[Function[Any, Any]], *, seed: int = 0, evict: Evict = "never") -> ReplayBackend:
        """One more worker.

        Args:
            functions: What it serves.
            seed: Fixes the order of concurrent branches, where that can be done.
            evict: ``"always"`` replays a run from the start after each step.
        """

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """All that it holds now."""

    @abstractmethod
    async def pieces(self, run_id: str) -> Sequence[StoredDelta]:
        """The pieces of the streamed answers of a run."""

    @abstractmethod
    def event_ids(self, names: Collection[str]) -> list[str]:
        """The ids of the events of these names, one for each delivery."""

    @abstractmethod
    def refuse(self, times: int | None) -> None:
        """Refuse so many more commits; ``None``: none any more."""

    def settle(self, backend: ReplayBackend) -> None:
        """Finish what a worker is about to write."""
        return

    def close(self) -> None:
        """Be gone."""
        return


class MemoryStore(MachineStore):
    """A journal in memory, which may refuse commits.

    Args:
        backend: The backend to try.
        journal: The journal to try.
    """

    def __init__(
        self, backend: type[MemoryBackend] = MemoryBackend, journal: type[FaultyJournal] = FaultyJournal
    ) -> None:
        super().__init__()
        self._backend = backend
        self._journal = journal()

    def open(self, functions: Sequence[Function[Any, Any]], *, seed: int = 0, evict: Evict = "never") -> ReplayBackend:
        return self._backend(functions, journal=self._journal, clock=self.clock, seed=seed, evict=evict)

    def snapshot(self) -> Snapshot:
        return Snapshot.of_journal(self._journal)

    async def pieces(self, run_id: str) -> Sequence[StoredDelta]:
        return (await stored_pieces(self._journal.deltas, [run_id]))[run_id]

    def event_ids(self, names: Collection[str]) -> list[str]:
        return _event_ids(self._journal, names)

    def refuse(self, times: int | None) -> None:
        self._journal.refuse = 0 if times is None else self._journal.refuse + times


class SQLiteStore(MachineStore):
    """A file, which each worker opens for itself, and whose disk may fail."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="durably-")
        self._path = Path(self._folder.name) / "runs.db"
        self._refusals = Refusals()
        storage = type("Journal", (FaultySQLiteJournal,), {"refusals": self._refusals})
        self._backend: type[SQLiteBackend] = type("Backend", (SQLiteBackend,), {"storage": storage})

    def open(self, functions: Sequence[Function[Any, Any]], *, seed: int = 0, evict: Evict = "never") -> ReplayBackend:
        return self._backend(self._path, functions, clock=self.clock, evict=evict)

    def settle(self, backend: ReplayBackend) -> None:
        # A thread commits it: how many turns of the loop that takes must not depend on how busy the machine is.
        assert isinstance(backend.journal, SQLiteJournal)
        backend.journal.groups.settle()

    def event_ids(self, names: Collection[str]) -> list[str]:
        journal = SQLiteJournal(self._path)
        journal.open()
        try:
            return _event_ids(journal, names)
        finally:
            journal.close()

    def refuse(self, times: int | None) -> None:
        self._refusals.left = 0 if times is None else self._refusals.left + times

    def snapshot(self) -> Snapshot:
        return Snapshot.of_journal(SQLiteJournal(self._path))

    async def pieces(self, run_id: str) -> Sequence[StoredDelta]:
        return (await stored_pieces(SQLiteDeltas(self._path), [run_id]))[run_id]

    def close(self) -> None:
        self._folder.cleanup()


def _event_ids(journal: Journal, names: Collection[str]) -> list[str]:
    return [received.event.id or "" for name in names for received in journal.events_since(0, name)]
