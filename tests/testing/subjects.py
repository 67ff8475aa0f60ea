"""The subjects of our own backends that the library does not ship."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from durably.backends import SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Backend, Function
from durably.testing.conformance import Subject


class SQLiteSubject(Subject):
    """The SQLite backend on one file, with virtual time."""

    keeps_deltas = True

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__()
        self.path = directory / "runs.db"
        self.options = options
        self.time: float | None = None

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        clock = VirtualClock() if self.time is None else VirtualClock(self.time)
        backend = SQLiteBackend(self.path, list(functions), clock=clock, **self.options, **options)
        backend.grace = 0.5
        try:
            async with backend:
                yield backend
        finally:
            self.time = max(clock.now(), self.time or 0.0)

    def now(self, backend: Backend) -> float:
        assert isinstance(backend, SQLiteBackend)
        return backend.clock.now()

    async def expire(self, backend: Backend) -> None:
        assert isinstance(backend, SQLiteBackend)
        backend.lease.lose()

    def storage(self) -> bytes | None:
        return b"".join(file.read_bytes() for file in self.path.parent.glob("runs.db*"))
