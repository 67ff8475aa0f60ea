"""The thread in which a SQLite file is waited for: what may wait for its lock, or for the disk, is done there.

The event loop goes on meanwhile. What a worker records does not pass here, but through its group commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from durably.backends.replay.sqlite_file import SQLiteFile

__all__ = ["FileThread"]

T = TypeVar("T")


class FileThread:
    """Opens a file at the first use, and does with it one thing after another.

    Args:
        file: The file. Nobody else uses it.
    """

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[[SQLiteFile], T]) -> T:
        """What a call with the open file returns, or raises. It is made even if nobody waits for it any more.

        Raises:
            JournalError: If the file cannot be opened, or refuses.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, f"durably {self._file.path.name}")
        called = asyncio.get_running_loop().run_in_executor(self._thread, self._opened, call)
        return await asyncio.shield(called)

    def close(self) -> None:
        """Let go of the file, once all is done that was asked for; until the next use."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._file.close).result()
            thread.shutdown()

    def _opened(self, call: Callable[[SQLiteFile], T]) -> T:
        if not self._file.is_open:
            self._file.open()
        return call(self._file)
