"""A worker: it runs what the web process starts. Start as many as you like; if one dies, another goes on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import run_worker
from examples.chat_service.agent import support

__all__ = ["make_worker"]


def make_worker(path: Path) -> SQLiteBackend:
    """Return the backend of a worker.

    Args:
        path: The file. The books stand in a directory beside it.
    """
    books = path.with_suffix(".books")
    books.mkdir(exist_ok=True)
    return SQLiteBackend(path, [support()], resources={"books": books})


if __name__ == "__main__":
    asyncio.run(run_worker(make_worker(Path(sys.argv[1]))))
