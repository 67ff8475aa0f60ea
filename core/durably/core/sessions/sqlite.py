"""Sessions in one SQLite file. An append is one row, so it is written whole or not at all."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from durably.core.ids import check_session_key
from durably.core.messages import SessionEntry
from durably.core.sessions.store import SessionError, damaged, messages_from_json, messages_to_json

__all__ = ["SQLiteSessions"]

BUSY_SECONDS = 10.0
APPLICATION_ID = 0x64757373
USER_VERSION = 1

SCHEMA = """
CREATE TABLE appends (
    n INTEGER PRIMARY KEY, session TEXT NOT NULL, key TEXT NOT NULL, messages TEXT NOT NULL, crc INTEGER NOT NULL,
    UNIQUE (session, key)
)
"""

INDEX = "CREATE INDEX IF NOT EXISTS by_session ON appends (session)"
"""Lets a session be read from a place on, in its order; files of the first version get it with their next append."""


class SQLiteSessions:
    """Keeps sessions in one file. Several processes may share it: writers wait for each other.

    Each call opens and closes the file, so there is nothing to close at the end. An append that returned survives a
    power cut.

    Args:
        path: The file. The first append creates it, readable by its owner only. It must not be the file of a
            ``SQLiteBackend``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # wherever the process goes later

    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        """See :meth:`SessionStore.append`.

        Raises:
            SessionError: If the file is damaged or belongs to another program.
        """
        check_session_key(session_key)
        await asyncio.to_thread(self._append, session_key, key, messages_to_json(messages))

    async def load(self, session_key: str) -> list[SessionEntry]:
        """See :meth:`SessionStore.load`.

        Raises:
            SessionError: If the file is damaged or belongs to another program.
        """
        return [message for append in await self.load_appends(session_key) for message in append]

    async def load_appends(self, session_key: str, after: int = 0) -> list[list[SessionEntry]]:
        """See :meth:`AppendLog.load_appends`.

        Raises:
            SessionError: If the file is damaged or belongs to another program.
        """
        return await asyncio.to_thread(self._appends, session_key, after)

    def _appends(self, session_key: str, after: int) -> list[list[SessionEntry]]:
        appends = []
        for n, text, crc in self._rows(session_key, after):
            where = f"{self.path}: append {n} of session {session_key!r}"
            if zlib.crc32(text) != crc:
                raise damaged(where, "its checksum is wrong")
            appends.append(messages_from_json(text.decode(), where=where))
        return appends

    def _append(self, session_key: str, key: str, text: str) -> None:
        if not self.path.parent.is_dir():
            raise SessionError(f"cannot open {self.path}: there is no directory {self.path.parent}; make it")
        # SQLite would make the file with the default permissions, and others could read it for a moment.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._open() as db:
            # FULL does not sync the directory after the rollback journal is deleted: a power cut could undo the append.
            db.execute("PRAGMA synchronous = EXTRA")
            db.execute("BEGIN IMMEDIATE")
            if self._is_new(db):
                db.execute(SCHEMA)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {USER_VERSION}")
            db.execute(INDEX)
            values = session_key, key, text, zlib.crc32(text.encode())
            db.execute("INSERT OR IGNORE INTO appends VALUES (NULL, ?, ?, ?, ?)", values)
            db.execute("COMMIT")

    def _rows(self, session_key: str, after: int) -> list[tuple[int, bytes, int]]:
        if not self.path.exists():
            return []
        with self._open() as db:
            db.execute("BEGIN")
            if self._is_new(db):
                return []
            sql = "SELECT n, CAST(messages AS BLOB), crc FROM appends WHERE session = ? ORDER BY n LIMIT -1 OFFSET ?"
            return db.execute(sql, (session_key, after)).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            yield db
        except sqlite3.OperationalError:
            raise  # a held lock or a full disk: the step is retried, which a SessionError would not be
        except sqlite3.DatabaseError as error:
            raise SessionError(f"cannot use {self.path}: {error}; restore it from a backup") from error
        finally:
            db.close()  # also rolls back what was not committed

    def _is_new(self, db: sqlite3.Connection) -> bool:
        """Return whether the file is still empty.

        Raises:
            SessionError: If it belongs to another program or to a newer version of this one.
        """
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if tables and application != APPLICATION_ID:
            raise SessionError(f"{self.path} does not hold sessions: choose another path")
        if version > USER_VERSION:
            raise SessionError(
                f"{self.path} was written by a newer durably (version {version}, this one knows {USER_VERSION}): "
                "upgrade durably"
            )
        return not tables
