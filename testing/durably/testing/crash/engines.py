"""The engines a test can run on, and the store that outlives a crash."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.journal import Journal
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.backends.sqlite import SQLiteBackend
from durably.core import Backend, DefinitionError, Function
from durably.core.ids import new_id

__all__ = ["ENGINES", "Engine", "OpenBackend", "Store", "find_engine"]

RUN_ID = "crash-test"
MEMORY_FILES = "/dev/shm"
"""Where Linux has files that are in memory alone."""


class Store:
    """What outlives the process in one experiment; it is the same in all lives.

    ``with`` removes its directory at the end, if it was a temporary one.

    Args:
        path: A directory for files; left out, a temporary one is made when it is first asked for.
        evict: Whether the backend should replay the run from the start after each step, where it can.
        seed: Fixes the order of concurrent branches, where the backend can.

    Attributes:
        id: Unique; for names of queues and the like on a server that several experiments share.
        run_id: The id of the run; the same in every experiment, so that their records can be compared.
        journal: The memory backend's journal.
    """

    def __init__(self, path: str | Path | None = None, *, evict: bool = False, seed: int = 0) -> None:
        self.id = new_id()
        self.run_id = RUN_ID
        self.evict = evict
        self.seed = seed
        self.journal = MemoryJournal()
        self._path = None if path is None else Path(path)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._clock: VirtualClock | None = None

    @property
    def now(self) -> float:
        """What the clock of this life shows."""
        return 0.0 if self._clock is None else self._clock.now()

    def set_clock(self, now: float) -> None:
        """Let the next life begin at a moment."""
        self._clock = VirtualClock(now)

    @property
    def path(self) -> Path:
        """A directory that is this experiment's own."""
        if self._path is None:
            # A process that dies loses no file, wherever it is. A disk would be waited for at each commit.
            memory = MEMORY_FILES if os.access(MEMORY_FILES, os.W_OK) else None
            self._temporary = tempfile.TemporaryDirectory(prefix="durably-", dir=memory)
            self._path = Path(self._temporary.name)
        return self._path

    def clock(self) -> VirtualClock:
        """A virtual clock for the next life; it goes on where the last one stopped."""
        self._clock = VirtualClock() if self._clock is None else VirtualClock(self._clock.now())
        return self._clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()


OpenBackend = Callable[[Sequence[Function[Any, Any]], Store], Backend]
"""Makes a backend that runs these functions on this store; called once for each life."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the harness runs a backend.

    Attributes:
        name: What reports call it.
        open: Makes the backend of one life.
        journal: Opens the store's journal to read it while no worker is up, or ``None`` if that cannot be done.
        processes: Whether another process can go on with the store.
        fresh: Whether each store is empty at first. If not (a server that all share), run ids are made unique.
    """

    name: str
    open: OpenBackend
    journal: Callable[[Store], Journal] | None = None
    processes: bool = False
    fresh: bool = True


def _memory(functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
    return MemoryBackend(
        functions,
        journal=store.journal,
        clock=store.clock(),
        seed=store.seed,
        evict="always" if store.evict else "never",
    )


def _sqlite(functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
    return SQLiteBackend(
        store.path / "runs.db", functions, clock=store.clock(), evict="always" if store.evict else "never"
    )


def _sqlite_journal(store: Store) -> Journal:
    return SQLiteJournal(store.path / "runs.db")


ENGINES = {
    "memory": Engine(name="memory", open=_memory, journal=lambda store: store.journal),
    "sqlite": Engine(name="sqlite", open=_sqlite, journal=_sqlite_journal, processes=True),
}
"""The engines that have a name. Put yours in to use it with ``--durably-backend=NAME``."""


def find_engine(backend: str | Engine | OpenBackend) -> Engine:
    """The engine a user means.

    Args:
        backend: Its name, an :class:`Engine`, or just a function that makes the backend of one life.

    Raises:
        DefinitionError: If there is none of this name.
    """
    if isinstance(backend, Engine):
        return backend
    if not isinstance(backend, str):
        return Engine(name=getattr(backend, "__name__", "backend"), open=backend, fresh=False)
    if backend not in ENGINES:
        raise DefinitionError(f"there is no backend {backend!r} for tests; the known ones are: {', '.join(ENGINES)}")
    return ENGINES[backend]
