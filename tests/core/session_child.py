"""A process that appends to a session and, if told to, is killed in the middle of it.

Called as: session_child.py STORE PATH WRITER COUNT [PLACE]. Prints the key of each append that returned.
STORE is `jsonl` or `sqlite`; PLACE is where to die in the last append.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from typing import Any

from durably.core import JSONLSessions, SQLiteSessions, assistant, user

STORE, PATH, WRITER, COUNT, *PLACE = sys.argv[1:]
write, fsync, connect = os.write, os.fsync, sqlite3.connect


def die(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half(file: int, data: Any) -> int:
    write(file, bytes(data)[: len(data) // 2])
    return int(die())


def write_all_but_the_line_break(file: int, data: Any) -> int:
    write(file, bytes(data)[:-1])
    return int(die())


def write_then_die(file: int, data: Any) -> int:
    write(file, data)
    return int(die())


class DiesAt(sqlite3.Connection):
    """Dies before or after it runs a statement."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if [f"before {sql.split()[0]}"] == PLACE:
            die()
        cursor = super().execute(sql, *values)
        if [f"after {sql.split()[0]}"] == PLACE:
            die()
        return cursor


def connect_to_die(*args: Any, **options: Any) -> sqlite3.Connection:
    return connect(*args, factory=DiesAt, **options)


PLACES = {
    "half a line": ("os", "write", write_half),
    "no line break": ("os", "write", write_all_but_the_line_break),
    "before fsync": ("os", "write", write_then_die),
    "before any fsync": ("os", "fsync", die),
}


async def run() -> None:
    store = JSONLSessions(PATH) if STORE == "jsonl" else SQLiteSessions(PATH)
    for number in range(int(COUNT)):
        key = f"{WRITER}-{number}"
        if PLACE and number == int(COUNT) - 1:
            sqlite3.connect = connect_to_die  # type: ignore[assignment]
            if STORE == "jsonl" and PLACE[0] in PLACES:
                _, name, replacement = PLACES[PLACE[0]]
                setattr(os, name, replacement)
        await store.append("s", [user(f"ask {key} ü"), assistant(f"answer {key}")], key=key)
        if PLACE == ["after return"] and number == int(COUNT) - 1:
            die()
        print(key, flush=True)


asyncio.run(run())
