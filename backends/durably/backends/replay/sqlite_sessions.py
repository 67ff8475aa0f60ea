"""Sessions in the SQLite file of a backend, beside the runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeVar

from durably.backends.replay.patience import patiently
from durably.backends.replay.sqlite_file import SQLiteFile
from durably.core.ids import check_session_key
from durably.core.messages import SessionEntry
from durably.core.sessions.store import damaged, messages_from_json, messages_to_json

__all__ = ["SQLiteFileSessions"]

T = TypeVar("T")

BUSY_SECONDS = 30.0
"""How long an append waits while another process writes, before its step is tried again."""
APPEND_SHIFT = 32
"""Bits for the number of an append within its session."""
SMALL = 200
"""Texts of fewer bytes are not compressed: it would save nothing."""


class SQLiteFileSessions:
    """Keeps sessions in the file of a SQLite backend, through its connection: while the backend is open.

    Args:
        file: The file.
    """

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file

    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        """See :meth:`~durably.core.SessionStore.append`."""
        check_session_key(session_key)
        text = messages_to_json(messages)
        await self._patiently(lambda: self._append(session_key, key, text))

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
        rows = await self._patiently(lambda: self._rows(session_key, after))
        return [self._read(session_key, id, kind, data, crc) for id, kind, data, crc in rows]

    async def delete(self, session_key: str) -> None:
        """Forget a session. A run that has read it cannot go on."""
        await self._patiently(lambda: self._delete(session_key))

    async def _patiently(self, call: Callable[[], T]) -> T:
        return await patiently(call, BUSY_SECONDS)

    def _append(self, session_key: str, key: str, text: str) -> None:
        with self._file.transaction():
            self._file.run("INSERT OR IGNORE INTO sessions (session_key) VALUES (?)", session_key)
            number = self._number(session_key)
            seen = "SELECT 1 FROM session_keys WHERE session = ? AND key = ?"
            if self._file.run(seen, number, _short(key)).fetchone() is not None:
                return
            first, last = _ids(number or 0)
            (newest,) = self._file.run("SELECT max(id) FROM appends WHERE id BETWEEN ? AND ?", first, last).fetchone()
            id = first if newest is None else newest + 1
            data = text.encode()
            self._file.run("INSERT INTO appends VALUES (?, ?, ?)", id, _packed(data), zlib.crc32(data))
            self._file.run("INSERT INTO session_keys VALUES (?, ?)", number, _short(key))

    def _rows(self, session_key: str, after: int) -> list[tuple[int, str, bytes, int]]:
        number = self._number(session_key)
        if number is None:
            return []
        first, last = _ids(number)
        # As bytes: a damaged text may be none.
        fields = "id, typeof(messages), CAST(messages AS BLOB), crc"
        sql = f"SELECT {fields} FROM appends WHERE id BETWEEN ? AND ? ORDER BY id"
        return self._file.run(sql, first + after, last).fetchall()

    def _delete(self, session_key: str) -> None:
        with self._file.transaction():
            number = self._number(session_key)
            if number is not None:
                self._file.run("DELETE FROM appends WHERE id BETWEEN ? AND ?", *_ids(number))
                self._file.run("DELETE FROM session_keys WHERE session = ?", number)
                self._file.run("DELETE FROM sessions WHERE n = ?", number)

    def _number(self, session_key: str) -> int | None:
        row = self._file.run("SELECT n FROM sessions WHERE session_key = ?", session_key).fetchone()
        return None if row is None else int(row[0])

    def _read(self, session_key: str, id: int, kind: str, data: bytes, crc: int) -> list[SessionEntry]:
        number = id & (1 << APPEND_SHIFT) - 1
        where = f"{self._file.path}: append {number} of session {session_key!r}"
        try:
            data = zlib.decompress(data) if kind == "blob" else data
        except zlib.error as error:
            raise damaged(where, str(error)) from error
        if zlib.crc32(data) != crc:
            raise damaged(where, "its checksum is wrong")
        return messages_from_json(data.decode(), where=where)


def _ids(session: int) -> tuple[int, int]:
    """The first and the last id that an append of a session can have."""
    return session << APPEND_SHIFT, (session + 1 << APPEND_SHIFT) - 1


def _short(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=16).digest()


def _packed(data: bytes) -> bytes | str:
    """What is written of a text: itself, or compressed where that is shorter."""
    if len(data) >= SMALL:
        packed = zlib.compress(data)
        if len(packed) < len(data):
            return packed
    return data.decode()
