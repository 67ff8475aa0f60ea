"""Where the pieces of streamed answers are kept for those who read a run's stream: the port, and a store in memory.

Owns the port, and writing in batches. Does not own the order of a stream (``stream.py``).
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from durably.core.errors import DurablyError
from durably.core.model import StreamedDelta
from durably.core.observer import Observer

__all__ = ["DeltaStore", "DeltaWriter", "MemoryDeltas", "StoredDelta"]

logger = logging.getLogger("durably")

BATCH_SECONDS = 0.05
"""How long a piece may wait for others to be written with it."""


@dataclass(frozen=True, slots=True)
class StoredDelta:
    """A piece as a store keeps it.

    Attributes:
        delta: The piece.
        place: How many records its run had when it was stored; ``None`` where the worker does not know.
        number: How many pieces of its run came before. The store gives it.
    """

    delta: StreamedDelta
    place: int | None
    number: int = 0


class DeltaStore(ABC):
    """Keeps the pieces of streamed answers, until their run is deleted.

    They need not survive a power cut: what counts is in the records. The methods are called in the event loop, and must
    not hold it up.
    """

    @abstractmethod
    async def append(self, pieces: Sequence[StoredDelta]) -> None:
        """Add pieces, of any runs, each behind those of its run; their numbers are not looked at.

        Raises:
            DurablyError: If they cannot be written now.
        """

    @abstractmethod
    async def read(self, run_id: str, start: int) -> list[StoredDelta]:
        """The pieces of a run from a number on, in their order."""

    @abstractmethod
    async def delete(self, run_id: str) -> None:
        """Forget the pieces of a run."""

    async def close(self) -> None:
        """Let go of files. What was written stays; a call after that opens them again."""
        return


class MemoryDeltas(DeltaStore):
    """Keeps pieces as long as the object lives."""

    def __init__(self) -> None:
        self._runs: dict[str, list[StoredDelta]] = {}

    def copy(self) -> MemoryDeltas:
        """Another store that holds the same."""
        copy = MemoryDeltas()
        copy._runs = {run_id: list(pieces) for run_id, pieces in self._runs.items()}
        return copy

    def holds_the_same_as(self, copy: MemoryDeltas) -> bool:
        """Whether nothing was written since a copy was made."""
        return {run_id: len(each) for run_id, each in self._runs.items()} == {
            run_id: len(each) for run_id, each in copy._runs.items()
        }

    async def append(self, pieces: Sequence[StoredDelta]) -> None:
        for piece in pieces:
            known = self._runs.setdefault(piece.delta.run_id, [])
            known.append(replace(piece, number=len(known)))

    async def read(self, run_id: str, start: int) -> list[StoredDelta]:
        return self._runs.get(run_id, [])[start:]

    async def delete(self, run_id: str) -> None:
        self.forget(run_id)

    def forget(self, run_id: str) -> None:
        """What :meth:`delete` does, within another call."""
        self._runs.pop(run_id, None)


class DeltaWriter(Observer):
    """Writes the pieces that come on a worker to a store, several at once.

    Args:
        store: The store.

    Attributes:
        place: Returns how many records a run has, or ``None``; set by an engine that knows.
    """

    def __init__(self, store: DeltaStore) -> None:
        self.place: Callable[[str], int | None] = lambda run_id: None
        self._store = store
        self._pending: list[StreamedDelta] = []
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._flushing: set[asyncio.Task[None]] = set()

    def delta(self, event: StreamedDelta) -> None:
        self._pending.append(event)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._begin_to_flush)

    def _begin_to_flush(self) -> None:
        task = asyncio.ensure_future(self.flush())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def flush(self) -> None:
        async with self._turn:  # behind the pieces before these, also where those are still being written
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            pending, self._pending = self._pending, []
            if pending:
                await self._write(pending)

    async def _write(self, pending: Sequence[StreamedDelta]) -> None:
        try:
            # The place is that of now, not of when the piece came: who has read a later record reads no earlier piece.
            await self._store.append([StoredDelta(event, self.place(event.run_id)) for event in pending])
        except DurablyError as error:
            # Not kept: behind the record of the answer, which is whole, they would come too late.
            logger.warning("%d pieces of answers are missing in streams: %s", len(pending), error)
