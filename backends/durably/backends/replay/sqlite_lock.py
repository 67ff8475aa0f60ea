"""Who holds the lock under which a SQLite file is written, and what is said when that takes long.

In WAL mode this lock is one byte of the file beside the database whose name ends with ``-shm``
(https://www.sqlite.org/walformat.html#the_wal_index_file_format). Linux lists all such locks with the processes that
hold them in ``/proc/locks``. That list is read, and the file is not opened: to close it again would take away the locks
that this process has on it itself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from durably.core.errors import JournalBusyError

__all__ = ["LockWatch", "lock_holder"]

logger = logging.getLogger("durably")

WRITE_LOCK = 120
"""The byte of the ``-shm`` file that a writer locks."""

SAY_AFTER, SAY_AGAIN = 1.0, 30.0
"""Seconds for which the lock is held before that is said, and said again."""

PROC = Path("/proc")


class LockWatch:
    """Knows since when a file refuses to be written here, and says so when it takes long.

    Args:
        path: The database.
        worker_of: The name of the worker that a process is, empty for none.

    Attributes:
        refused_since: When the first of the tries to write was refused that all were since; 0 if the last one was not.
    """

    def __init__(self, path: Path, worker_of: Callable[[int], str]) -> None:
        self._path = path
        self._worker_of = worker_of
        self.refused_since = 0.0
        self._said = 0.0

    def refuse(self) -> JournalBusyError:
        """Note that the lock is held by somebody else; the error that says so."""
        now = time.monotonic()
        error = JournalBusyError(path=str(self._path), holder=self._holder())
        self.refused_since = self.refused_since or now
        if now >= self.refused_since + SAY_AFTER and (not self._said or now >= self._said + SAY_AGAIN):
            self._said = now
            logger.warning("waiting for %.1f seconds to write: %s", now - self.refused_since, error)
        return error

    def pass_by(self) -> None:
        """Note that the lock was had."""
        if self._said:
            logger.warning("%s is free again, after %.1f seconds", self._path, time.monotonic() - self.refused_since)
        self.refused_since = self._said = 0.0

    def _holder(self) -> str:
        pid = lock_holder(self._path)
        if pid is None:
            return ""
        if pid == os.getpid():
            return "another connection of this process"
        worker = self._worker_of(pid)
        known = [f"worker {worker!r}"] if worker else []
        if _is_stopped(pid):
            known.append("stopped")
            return f"process {pid} ({', '.join(known)}): let it go on with 'kill -CONT {pid}', or end it"
        return f"process {pid} ({', '.join(known)})" if known else f"process {pid}"


def lock_holder(path: Path) -> int | None:
    """The process that holds the lock for writing to a database, or ``None`` where the system does not tell."""
    try:
        inode = path.with_name(f"{path.name}-shm").stat().st_ino
        lines = (PROC / "locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        # 7: POSIX  ADVISORY  WRITE 4242 fd:01:1835 120 120
        fields = line.split()
        if len(fields) != 8 or fields[3] != "WRITE" or not fields[5].endswith(f":{inode}"):
            continue
        pid, first, last = int(fields[4]), int(fields[6]), fields[7]
        if pid > 0 and first <= WRITE_LOCK and (last == "EOF" or int(last) >= WRITE_LOCK):
            return pid
    return None


def _is_stopped(pid: int) -> bool:
    try:
        status = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")
