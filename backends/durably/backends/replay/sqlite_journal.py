"""The storage of the replay engine in one SQLite file."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from durably.backends.replay.flow.rules import StartRules
from durably.backends.replay.flow.sqlite_store import SQLiteFlowStore
from durably.backends.replay.journal import Journal, Received, RunRow, Subscription
from durably.backends.replay.sqlite_file import SQLiteFile
from durably.core import Event, Singleton
from durably.core.backend import RunStatus
from durably.core.errors import JournalCorruptError, JournalError, StaleRunError
from durably.core.history import StepRecord

__all__ = ["SQLiteJournal"]

RUN_SHIFT = 24
"""Bits for the number of a record within its run: 16 million records a run."""


class SQLiteJournal(Journal):
    """A journal in a SQLite file, in WAL mode with ``synchronous=FULL``: a commit that returned survives power loss.

    Statements run in the event loop's thread: a hop to another thread and back costs about as much as the commit.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.file = SQLiteFile(path)
        self.flow = SQLiteFlowStore(self.file)
        self._numbers: dict[str, int] = {}
        self._version = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def open(self) -> None:
        self.file.open()

    def close(self) -> None:
        self.file.close()

    def transaction(self) -> AbstractContextManager[None]:
        return self.file.transaction()

    # -- workers and functions

    def register(self, subscriptions: Sequence[Subscription]) -> None:
        with self.transaction():
            for each in subscriptions:
                rule = json.dumps([each.singleton.key, each.singleton.mode]) if each.singleton else None
                self.file.run(
                    "REPLACE INTO functions (id, triggers, singleton, rules) VALUES (?, ?, ?, ?)",
                    each.function,
                    json.dumps(each.triggers),
                    rule,
                    each.rules.to_json(),
                )

    def lease(self, worker: str, until: float) -> None:
        self.file.run("REPLACE INTO workers VALUES (?, ?, ?, ?)", worker, _this_host(), os.getpid(), until)

    def is_alive(self, worker: str, now: float) -> bool:
        row = self.file.run("SELECT host, pid, expires FROM workers WHERE id = ?", worker).fetchone()
        return row is not None and row[2] > now and not _is_dead(row[0], row[1])

    def release(self, worker: str) -> None:
        with self.transaction():
            self.file.run("UPDATE runs SET owner = NULL WHERE owner = ?", worker)
            self.file.run("DELETE FROM workers WHERE id = ?", worker)

    def bury(self, worker: str) -> None:
        self.file.run("UPDATE workers SET expires = 0 WHERE id = ?", worker)

    def changed(self) -> bool:
        (version,) = self.file.run("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(version != before)

    def claimable(self, worker: str, served: Sequence[str], now: float) -> Sequence[RunRow]:
        owners = self.file.run("SELECT id, host, pid, expires FROM workers").fetchall()
        alive = {id for id, host, pid, expires in owners if expires > now and not _is_dead(host, pid)}
        by_status = (f"{_RUN} WHERE status = '{each}' AND owner IS NOT ?1" for each in ("running", "stuck"))
        rows = self.file.run(f"{' UNION ALL '.join(by_status)} ORDER BY n", worker).fetchall()
        found = [self._row(*row) for row in rows]
        return [row for row in found if row.function in served and row.owner not in alive]

    def take(self, row: RunRow) -> None:
        self.file.run(
            "UPDATE runs SET status = ?, owner = ?, fence = ?, crashes = ?, singleton = ?, crash_notes = ?"
            " WHERE id = ?",
            row.status.value,
            row.owner,
            row.fence,
            json.dumps(row.crashes),
            row.singleton,
            row.crash_notes or None,
            row.id,
        )

    # -- runs and records

    def get(self, run_id: str) -> RunRow | None:
        row = self.file.run(f"{_RUN} WHERE id = ?", run_id).fetchone()
        return None if row is None else self._row(*row)

    def rows(self, function: str | None, status: RunStatus | None, limit: int) -> list[RunRow]:
        rows = self.file.run(
            f"{_RUN} WHERE (?1 IS NULL OR function = ?1) AND (?2 IS NULL OR status = ?2) ORDER BY n DESC LIMIT ?3",
            function,
            status,
            limit,
        )
        return [self._row(*row) for row in rows.fetchall()]

    def _row(self, n: int, id: str, function: str, status: str, *rest: Any) -> RunRow:
        parent, singleton, owner, fence, crashes, created_at, crash_notes = rest
        self._numbers[id] = n
        return RunRow(
            id=id,
            function=function,
            status=RunStatus(status),
            parent=parent,
            singleton=singleton,
            owner=owner,
            fence=fence,
            crashes=tuple(json.loads(crashes)),
            created_at=created_at,
            crash_notes=crash_notes or "",
        )

    def insert(self, row: RunRow) -> None:
        cursor = self.file.run(
            "INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            row.id,
            row.function,
            row.status.value,
            row.parent,
            row.singleton,
            row.owner,
            row.fence,
            json.dumps(row.crashes),
            row.created_at,
        )
        self._numbers[row.id] = cursor.lastrowid or 0

    def append(self, record: StepRecord, fence: int) -> None:
        n = self._numbers.get(record.run_id, 0)
        fields = _fields(record)
        try:
            done = self.file.run(
                _APPEND, (n << RUN_SHIFT) + record.seq, *fields, _checksum(record.seq, fields), n, fence
            ).rowcount
        except sqlite3.IntegrityError:
            done = 0  # another worker wrote this record first
        if not done:
            raise StaleRunError(run_id=record.run_id, fence=fence)

    def records(self, run_id: str) -> list[StepRecord]:
        found = self.records_since(run_id, 0)
        if not found:
            raise JournalCorruptError(run_id=run_id, seq=0)
        return found

    def records_since(self, run_id: str, seq: int) -> list[StepRecord]:
        first = self._numbers[run_id] << RUN_SHIFT
        sql = "SELECT * FROM records WHERE id >= ? AND id < ? ORDER BY id"
        try:
            rows = self.file.run(sql, first + seq, first + (1 << RUN_SHIFT)).fetchall()
        except (JournalError, sqlite3.DatabaseError) as error:
            if _is_damage(error):
                raise JournalCorruptError(run_id=run_id, seq=0) from error
            raise
        return [_record(run_id, number, first, row) for number, row in enumerate(rows, seq)]

    def count(self, run_id: str) -> int:
        first = self._numbers[run_id] << RUN_SHIFT
        (last,) = self.file.run(
            "SELECT max(id) FROM records WHERE id >= ? AND id < ?", first, first + (1 << RUN_SHIFT)
        ).fetchone()
        return int(last) - first + 1

    def last_record(self, run_id: str) -> StepRecord:
        first = self._numbers[run_id] << RUN_SHIFT
        row = self.file.run(
            "SELECT * FROM records WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1", first, first + (1 << RUN_SHIFT)
        ).fetchone()
        return _record(run_id, row[0] - first, first, row)

    def set_status(self, run_id: str, status: RunStatus) -> None:
        self.file.run("UPDATE runs SET status = ?, owner = NULL WHERE id = ?", status.value, run_id)

    def live_singletons(self, function: str, singleton: str) -> Sequence[str]:
        # Two questions in one, since each index is one of a status.
        by_status = (f"SELECT n, id FROM runs WHERE status = '{each}' AND {{0}}" for each in _LIVE)
        sql = " UNION ALL ".join(by_status).format("function = ?1 AND singleton = ?2")
        return [id for _, id in self.file.run(f"{sql} ORDER BY n", function, singleton).fetchall()]

    def live_children(self, run_id: str) -> Sequence[str]:
        rows = self.file.run(f"SELECT id FROM runs WHERE parent = ? AND status IN {_LIVE}", run_id)
        return [id for (id,) in rows.fetchall()]

    # -- events

    def cursor(self) -> int:
        (seq,) = self.file.run("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        return int(seq)

    def events_since(self, cursor: int, name: str) -> list[Received]:
        rows = self.file.run("SELECT seq, event, at FROM events WHERE seq > ? AND name = ? ORDER BY seq", cursor, name)
        return [Received(seq, Event.model_validate_json(event), at) for seq, event, at in rows.fetchall()]

    def next_due(self) -> float | None:
        (due,) = self.file.run("SELECT min(due) FROM scheduled").fetchone()
        return None if due is None else float(due)

    def subscription(self, function: str) -> Subscription | None:
        return next((each for each in self._subscriptions() if each.function == function), None)

    def subscribers(self, event: str) -> Sequence[Subscription]:
        return [each for each in self._subscriptions() if event in each.triggers]

    def _subscriptions(self) -> list[Subscription]:
        return [
            Subscription(
                id,
                tuple(json.loads(triggers)),
                Singleton(*json.loads(rule)) if rule else None,
                StartRules.from_json(rules),
            )
            for id, triggers, rule, rules in self.file.run(_FUNCTIONS).fetchall()
        ]

    def log(self, event: Event, now: float) -> Received | None:
        cursor = self.file.run(
            "INSERT OR IGNORE INTO events VALUES (NULL, ?, ?, ?, ?)", event.id, event.name, event.model_dump_json(), now
        )
        return Received(cursor.lastrowid or 0, event, now) if cursor.rowcount else None

    def schedule(self, event: Event) -> bool:
        (known,) = self.file.run("SELECT count(*) FROM events WHERE id = ?", event.id).fetchone()
        sql = "INSERT OR IGNORE INTO scheduled VALUES (?, ?, ?)"
        return not known and bool(self.file.run(sql, event.id, event.model_dump_json(), event.ts).rowcount)

    def take_due(self, now: float) -> Sequence[Event]:
        rows = self.file.run("SELECT event FROM scheduled WHERE due <= ? ORDER BY due, id", now).fetchall()
        self.file.run("DELETE FROM scheduled WHERE due <= ?", now)
        return [Event.model_validate_json(event) for (event,) in rows]


_RUN = "SELECT n, id, function, status, parent, singleton, owner, fence, crashes, created_at, crash_notes FROM runs"

_LIVE = ("running", "waiting", "stuck")

_FUNCTIONS = "SELECT id, triggers, singleton, rules FROM functions ORDER BY id"

_APPEND = """
INSERT INTO records SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
WHERE EXISTS (
    SELECT 1 FROM runs WHERE n = ? AND fence = ? AND status IN ('running', 'waiting', 'stuck', 'skipped')
)
"""


def _fields(record: StepRecord) -> tuple[Any, ...]:
    return (
        record.key or None,
        None if record.kind == "step" else record.kind,
        None if record.status == "completed" else record.status,
        record.attempt,
        record.name or None,
        record.input or None,
        record.output,
        None if record.error is None else json.dumps(record.error, ensure_ascii=False),
        record.due,
        round(record.at * 1e3),
        round(record.took * 1e6),
        record.v,
    )


def _checksum(seq: int, fields: tuple[Any, ...]) -> int:
    text = "\0".join(map(str, fields))
    return zlib.crc32(text.encode(), seq) & 0x7FFFFFFF  # 31 bits: SQLite keeps them in 4 bytes


def _record(run_id: str, seq: int, first: int, row: tuple[Any, ...]) -> StepRecord:
    id, *fields, crc = row
    if id != first + seq or crc != _checksum(seq, tuple(fields)):
        raise JournalCorruptError(run_id=run_id, seq=seq)
    key, kind, status, attempt, name, input, output, error, due, at, took, v = fields
    return StepRecord(
        run_id,
        seq,
        key or "",
        kind or "step",
        status or "completed",
        attempt,
        name or "",
        input or "",
        output,
        None if error is None else json.loads(error),
        due,
        at / 1e3,
        took / 1e6,
        v,
    )


def _is_damage(error: Exception) -> bool:
    """Whether waiting cannot help: the file itself is wrong, unlike a full disk or a lock."""
    code = getattr(error.__cause__ or error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _this_host() -> str:
    # Process ids are only comparable within one PID namespace: containers may share a file, not their processes.
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{platform.node()} {namespace}"


def _is_dead(host: str, pid: int) -> bool:
    """Whether a process of this host is surely gone; one of another host can only be judged by its lease."""
    if host != _this_host():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
