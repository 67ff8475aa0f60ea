"""What every test may use."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Function
from durably.core.backend import Backend

Open = Callable[..., Backend]

SHARED_MEMORY = Path("/dev/shm")
if os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > 2**32:
    # Thousands of commits would wait for the disk. No test cuts the power; memory keeps what a killed process wrote.
    os.environ.setdefault("TMPDIR", str(SHARED_MEMORY))
    tempfile.tempdir = None  # what it has looked up before is forgotten


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Collect no garbage while a report is made.

    It parses source, and where a collection in between makes asyncio report an error nobody fetched, CPython 3.11 says
    "AST constructor recursion depth mismatch", which ends the process.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Runs that fail log an error; thousands of them are no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(params=["memory", "sqlite"])
def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a backend of each kind: `open_backend([function, ...], **options)`."""

    def open_one(functions: Sequence[Function[Any, Any]], **options: Any) -> Backend:
        if request.param == "memory":
            return MemoryBackend(functions, **options)
        return SQLiteBackend(tmp_path / "runs.db", functions, **options)

    return open_one
