"""Sessions in JSON Lines: one directory, with one file for each session and one line for each append.

A crash may cut off the last line of a file. That append was never acknowledged, so the line is not read, and the next
append removes it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TypedDict

from durably.core.ids import check_session_key
from durably.core.messages import SessionEntry
from durably.core.sessions.store import SessionError, damaged, messages_from_json, messages_to_json

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

__all__ = ["JSONLSessions"]

logger = logging.getLogger("durably")

SCHEMA_VERSION = 1
READ_BYTES = 1 << 20


class JSONLSessions:
    """Keeps sessions in readable files. Several processes may share them: writers wait for each other.

    An append searches the session's file for its key, so ``SQLiteSessions`` is faster for very long sessions. An append
    that returned survives a power cut. It needs file locks, which Windows and some network drives do not have.

    Args:
        directory: The directory of the files. The first append creates it, readable by its owner only.

    Raises:
        SessionError: If this system has no file locks.
    """

    def __init__(self, directory: str | Path) -> None:
        if fcntl is None:
            raise SessionError("JSONLSessions needs flock(), which this system does not have: use SQLiteSessions")
        self.directory = Path(directory).absolute()  # wherever the process goes later

    def path(self, session_key: str) -> Path:
        """Return the file of a session. Its name holds the readable part of the key and a digest of the whole key."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", session_key)[:40].strip("-") or "session"
        return self.directory / f"{readable}-{blake2b(session_key.encode(), digest_size=16).hexdigest()}.jsonl"

    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        """See :meth:`SessionStore.append`.

        Raises:
            SessionError: If the session's file is damaged.
        """
        check_session_key(session_key)
        await asyncio.to_thread(self._append, session_key, key, messages_to_json(messages))

    async def load(self, session_key: str) -> list[SessionEntry]:
        """See :meth:`SessionStore.load`.

        Raises:
            SessionError: If the session's file is damaged.
        """
        return [message for append in await self.load_appends(session_key) for message in append]

    async def load_appends(self, session_key: str, after: int = 0) -> list[list[SessionEntry]]:
        """See :meth:`AppendLog.load_appends`.

        Raises:
            SessionError: If the session's file is damaged.
        """
        entries = await asyncio.to_thread(self._entries, session_key)
        path = self.path(session_key)
        return [
            messages_from_json(json.dumps(entry["messages"]), where=f"{path}, line {number}")
            for number, entry in enumerate(entries[after:], after + 1)
        ]

    def _append(self, session_key: str, key: str, text: str) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        head = json.dumps({"v": SCHEMA_VERSION, "session": session_key, "key": key}, separators=(",", ":"))
        line = f'{head[:-1]},"messages":{text}}}\n'.encode()
        path = self.path(session_key)
        with _locked(path, os.O_CREAT | os.O_RDWR | os.O_APPEND) as file:
            data = _read(file)
            entries, end = _parse(data, session_key, path)
            if end < len(data):
                logger.warning("%s: %d bytes of an append that was cut off are dropped", path, len(data) - end)
                os.ftruncate(file, end)
            if all(entry["key"] != key for entry in entries):
                joint = b"\n" if end and data[end - 1 : end] != b"\n" else b""
                _write(file, joint + line, end)
            # Also if the key is there: whoever wrote the line may have been killed before it reached the disk.
            os.fsync(file)
            _sync_directory(self.directory)

    def _entries(self, session_key: str) -> list[_Entry]:
        path = self.path(session_key)
        try:
            with _locked(path, os.O_RDONLY) as file:
                return _parse(_read(file), session_key, path)[0]
        except FileNotFoundError:
            return []


class _Entry(TypedDict):
    key: str
    messages: list[object]


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """Open a file and lock it: shared for reading, exclusive for writing."""
    assert fcntl is not None  # JSONLSessions refuses to be made without it
    file = os.open(path, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if flags & os.O_RDWR else fcntl.LOCK_SH)
        yield file
    finally:
        os.close(file)  # this also releases the lock, as does the death of the process


def _read(file: int) -> bytes:
    pieces = []
    while piece := os.read(file, READ_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def _write(file: int, data: bytes, end: int) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        os.ftruncate(file, end)  # or a full disk would leave half a line behind
        raise


def _sync_directory(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _parse(data: bytes, session_key: str, path: Path) -> tuple[list[_Entry], int]:
    """Return the entries of a file, and the position where the last whole one ends."""
    *lines, tail = data.split(b"\n")
    entries = [_entry(line, session_key, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    if _is_json(tail):  # a crash or an editor left out its line break, but the entry is whole
        entries.append(_entry(tail, session_key, f"{path}, line {len(lines) + 1}"))
        return entries, len(data)
    return entries, len(data) - len(tail)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _entry(line: bytes, session_key: str, where: str) -> _Entry:
    try:
        entry = json.loads(line)
        version, session = entry["v"], entry["session"]
        if version > SCHEMA_VERSION:
            raise SessionError(
                f"{where}: written by a newer durably (version {version}, this one knows {SCHEMA_VERSION}): upgrade "
                "durably"
            )
        if session != session_key or not isinstance(entry["key"], str) or not isinstance(entry["messages"], list):
            raise ValueError(f"not an entry of session {session_key!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(where, f"{type(error).__name__}: {error}") from error
    return _Entry(key=entry["key"], messages=entry["messages"])
