"""The backend that docs/conformance.md shows, put through the whole suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from durably.backends.replay.clock import VirtualClock
from durably.core import Backend, Function
from durably.testing.conformance import *  # noqa: F403  # the tests of the suite
from durably.testing.conformance import Subject
from examples.lmdb_backend import LMDBBackend

ROOT = Path(__file__).parent.parent.parent


def test_the_docs_show_it_whole() -> None:
    source = (ROOT / "examples/lmdb_backend.py").read_text()
    assert f"```python\n{source}```" in (ROOT / "docs/conformance.md").read_text()
    assert source.count("\n") < 250


class LMDBSubject(Subject):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.path = directory / "runs.lmdb"
        self.time = VirtualClock().now()

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        clock = VirtualClock(self.time)
        backend = LMDBBackend(self.path, list(functions), clock=clock, **options)
        backend.grace = 0.5
        try:
            async with backend:
                yield backend
        finally:
            self.time = max(clock.now(), self.time)

    def now(self, backend: Backend) -> float:
        assert isinstance(backend, LMDBBackend)
        return backend.clock.now()

    async def expire(self, backend: Backend) -> None:
        assert isinstance(backend, LMDBBackend)
        backend.lease.lose()

    def storage(self) -> bytes | None:
        return self.path.read_bytes()


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return LMDBSubject(tmp_path)
