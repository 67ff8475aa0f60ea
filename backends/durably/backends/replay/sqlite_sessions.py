"""Sessions in the SQLite file of a backend, beside the runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from durably.backends.replay.file_thread import FileThread
from durably.backends.replay.patience import patiently
from durably.backends.replay.sqlite_file import SQLiteFile
from durably.core.ids import check_session_key
from durably.core.messages import SessionEntry
from durably.core.serialization import codec_for
from durably.core.sessions.store import damaged

__all__ = ["SQLiteFileSessions"]

T = TypeVar("T")

BUSY_SECONDS = 30.0
"""How long an append waits while another process writes, before its step is tried again."""
APPEND_SHIFT = 32
"""Bits for the number of an append within its session."""
CHUNK = 8_000
"""So many bytes of appends become one row: together they are compressed better, and fill their pages."""

_appends = codec_for(list[list[SessionEntry]])


class SQLiteFileSessions:
    """Keeps sessions in the file of a SQLite backend. It is opened at the first use.

    A row holds several appends, compressed; the last row grows until it is full. An append that returned survives a
    power cut.

    Args:
        path: The file; made, readable by its owner alone, if it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._thread = FileThread(SQLiteFile(path))

    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        """See :meth:`~durably.core.SessionStore.append`."""
        check_session_key(session_key)
        text = _appends.encode([list(messages)], step="")
        await self._patiently(lambda file: self._append(file, session_key, key, text))

    async def load(self, session_key: str) -> list[SessionEntry]:
        """See :meth:`~durably.core.SessionStore.load`.

        Raises:
            SessionError: If the file is damaged.
        """
        return [entry for append in await self.load_appends(session_key) for entry in append]

    async def load_appends(self, session_key: str, after: int = 0) -> list[list[SessionEntry]]:
        """See :meth:`~durably.core.sessions.AppendLog.load_appends`.

        Raises:
            SessionError: If the file is damaged.
        """
        found: list[list[SessionEntry]] = []
        for place, text in await self._patiently(lambda file: self._chunks(file, session_key, after)):
            appends: list[list[SessionEntry]] = _appends.decode(text, step="")
            found += appends[max(0, after - place) :]
        return found

    async def delete(self, session_key: str) -> None:
        """Forget a session. A run that has read it cannot go on."""
        await self._patiently(lambda file: self._delete(file, session_key))

    def close(self) -> None:
        """Let go of the file, until the next use."""
        self._thread.close()

    async def _patiently(self, call: Callable[[SQLiteFile], T]) -> T:
        return await patiently(lambda: self._thread.run(call), BUSY_SECONDS)

    # -- in the thread

    def _append(self, file: SQLiteFile, session_key: str, key: str, text: str) -> None:
        short = blake2b(key.encode(), digest_size=16).digest()
        with file.transaction():
            file.run("INSERT OR IGNORE INTO sessions VALUES (NULL, ?, 0)", session_key)
            number, appends = file.run("SELECT n, appends FROM sessions WHERE session_key = ?", session_key).fetchone()
            if file.run("SELECT 1 FROM session_keys WHERE session = ? AND key = ?", number, short).fetchone():
                return
            place, text = self._joined_to_last(file, session_key, number, appends, text)
            data = text.encode()
            id = _ids(number)[0] + place
            file.run("REPLACE INTO appends VALUES (?, ?, ?)", id, zlib.compress(data), zlib.crc32(data))
            file.run("UPDATE sessions SET appends = ? WHERE n = ?", appends + 1, number)
            file.run("INSERT INTO session_keys VALUES (?, ?)", number, short)

    def _joined_to_last(
        self, file: SQLiteFile, session_key: str, number: int, appends: int, text: str
    ) -> tuple[int, str]:
        """An append with those of the last row, if that has room: the place of the first of them, and their text."""
        last = _rows(file, number, appends - 1) if appends else []
        if last:
            place, before = self._read(session_key, *last[-1])
            if len(before) + len(text) <= CHUNK:
                return place, f"{before[:-1]},{text[1:]}"
        return appends, text

    def _chunks(self, file: SQLiteFile, session_key: str, after: int) -> list[tuple[int, str]]:
        found = file.run("SELECT n FROM sessions WHERE session_key = ?", session_key).fetchone()
        return [] if found is None else [self._read(session_key, *row) for row in _rows(file, found[0], after)]

    def _delete(self, file: SQLiteFile, session_key: str) -> None:
        with file.transaction():
            found = file.run("SELECT n FROM sessions WHERE session_key = ?", session_key).fetchone()
            if found is not None:
                file.run("DELETE FROM appends WHERE id BETWEEN ? AND ?", *_ids(found[0]))
                file.run("DELETE FROM session_keys WHERE session = ?", found[0])
                file.run("DELETE FROM sessions WHERE n = ?", found[0])

    def _read(self, session_key: str, id: int, packed: bytes, crc: int) -> tuple[int, str]:
        place = id & (1 << APPEND_SHIFT) - 1
        where = f"{self._path}: append {place} of session {session_key!r}"
        try:
            data = zlib.decompress(packed)
        except zlib.error as error:
            raise damaged(where, str(error)) from error
        if zlib.crc32(data) != crc:
            raise damaged(where, "its checksum is wrong")
        return place, data.decode()


def _ids(session: int) -> tuple[int, int]:
    """The first and the last id that an append of a session can have."""
    return session << APPEND_SHIFT, (session + 1 << APPEND_SHIFT) - 1


def _rows(file: SQLiteFile, number: int, after: int) -> list[tuple[int, bytes, int]]:
    """The rows of a session from the one on that holds an append."""
    first, last = _ids(number)
    sql = """
        SELECT id, CAST(messages AS BLOB), crc FROM appends WHERE id <= ?1 AND id >= (
            SELECT coalesce(max(id), 0) FROM appends WHERE id BETWEEN ?2 AND ?3
        ) AND id >= ?2 ORDER BY id
    """
    return file.run(sql, last, first, first + after).fetchall()
