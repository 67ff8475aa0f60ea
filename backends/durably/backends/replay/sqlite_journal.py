"""The storage of the replay engine in one SQLite file."""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from durably.backends.replay import sqlite_search
from durably.backends.replay import sqlite_statements as statements
from durably.backends.replay.flow.rules import StartRules
from durably.backends.replay.flow.sqlite_store import SQLiteFlowStore
from durably.backends.replay.group_commit import GroupCommit
from durably.backends.replay.journal import Journal, nothing
from durably.backends.replay.journal_types import Received, RunRow, Subscription, WaitingRun
from durably.backends.replay.pruning import PrunableStorage
from durably.backends.replay.sqlite_file import RUN_SHIFT, SQLiteFile
from durably.backends.replay.sqlite_pruning import SQLitePruning
from durably.backends.replay.sqlite_sessions import SQLiteFileSessions
from durably.backends.replay.sqlite_text import packed, packed_beside, unpacked
from durably.backends.replay.sqlite_workers import is_dead, this_host, worker_view
from durably.core import Event, Singleton
from durably.core.errors import DurablyError, JournalCorruptError, JournalError, StaleRunError
from durably.core.history import StepRecord
from durably.core.run_filter import RunFilter
from durably.core.run_view import RunStatus
from durably.core.standing import may_open, may_settle
from durably.core.worker_view import WorkerView

__all__ = ["SQLiteJournal"]

T = TypeVar("T")

DEAD_SECONDS = 24 * 3600
"""For how long a worker that has vanished is kept in the list, in seconds."""

REMEMBERED = 10_000
"""How many runs' numbers are kept in memory."""

_BACK = 16
"""Among so many records before a run's result the one is looked for that it may repeat."""

_SCAN = 100
"""How many runs one look reads."""

_DELIVERED = 20
"""How many scheduled events are delivered in one transaction."""

_COUNTED = 2_000
"""How many runs one look counts."""

_FEW = 8
"""How many runs are read first of those that a worker may take."""


class SQLiteJournal(Journal):
    """A journal in a SQLite file, in WAL mode with ``synchronous=FULL``: a commit that returned survives power loss.

    Args:
        path: The file.

    Attributes:
        file: The file.
        groups: Commits what is written, without holding up the event loop.
    """

    files: ClassVar[type[SQLiteFile]] = SQLiteFile

    def __init__(self, path: str | Path) -> None:
        self.file = self.files(path, self._worker_of)
        self.groups = GroupCommit(self.file)
        self.file.settle = self.groups.settle
        self.file.undone = self._forget_numbers
        self._pruning = SQLitePruning(self.file)
        self.flow = SQLiteFlowStore(self.file)
        self._sessions = self.sessions = SQLiteFileSessions(path)
        self._numbers: dict[str, int] = {}
        self._version = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def pruning(self) -> PrunableStorage:
        return self._pruning

    def open(self) -> None:
        self.file.open()

    def close(self) -> None:
        self.groups.close()
        self.file.close()
        self._sessions.close()

    async def start(self) -> None:
        await asyncio.to_thread(self.open)

    async def stop(self) -> None:
        await self.groups.finish()
        await asyncio.to_thread(self.close)

    def transaction(self) -> AbstractContextManager[None]:
        return self.file.transaction()

    def write(
        self,
        change: Callable[[], T],
        then: Callable[[T], None] = nothing,
        otherwise: Callable[[BaseException], None] | None = None,
        *,
        alone: bool = False,
    ) -> asyncio.Future[T]:
        return self.groups.write(change, then, otherwise, alone=alone)

    def abandon(self, error: BaseException) -> None:
        self.groups.refuse(error)

    # -- workers and functions

    def register(self, subscriptions: Sequence[Subscription]) -> None:
        with self.transaction():
            # Workers that have long been dead: a run that one of them still holds is claimed all the same.
            self.file.run("DELETE FROM workers WHERE expires < ?", time.time() - DEAD_SECONDS)
            self.file.run("DELETE FROM worker_details WHERE id NOT IN (SELECT id FROM workers)")
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
        with self.transaction():
            self.file.run("REPLACE INTO workers VALUES (?, ?, ?, ?)", worker, this_host(), os.getpid(), until)

    def introduce(self, view: WorkerView) -> bool:
        functions = None if view.functions is None else list(view.functions)
        details = json.dumps([view.name, view.host, view.version, functions, view.lag])
        with self.transaction():
            self.file.run("REPLACE INTO worker_details VALUES (?, ?)", view.id, details)
        return True

    def workers(self, now: float) -> Sequence[WorkerView]:
        sql = """
            SELECT workers.id, host, pid, expires, details, (
                SELECT count(*) FROM runs WHERE status IN ('running', 'stuck') AND owner = workers.id
            ) FROM workers LEFT JOIN worker_details USING (id) WHERE expires > ? ORDER BY workers.id
        """
        found = self.file.run(sql, now).fetchall()
        return [worker_view(id, pid, *rest) for id, host, pid, *rest in found if not is_dead(host, pid)]

    def _worker_of(self, pid: int) -> str:
        sql = "SELECT details FROM workers JOIN worker_details USING (id) WHERE pid = ? AND host = ?"
        row = self.file.run(sql, pid, this_host()).fetchone()
        return "" if row is None else str(json.loads(row[0])[0])

    def release(self, worker: str) -> None:
        with self.transaction():
            self.file.run("UPDATE runs SET owner = NULL WHERE owner = ?", worker)
            self.file.run("DELETE FROM workers WHERE id = ?", worker)
            self.file.run("DELETE FROM worker_details WHERE id = ?", worker)

    def bury(self, worker: str) -> None:
        with self.transaction():
            self.file.run("UPDATE workers SET expires = 0 WHERE id = ?", worker)

    def living(self, now: float) -> Collection[str]:
        owners = self.file.run("SELECT id, host, pid, expires FROM workers").fetchall()
        return {id for id, host, pid, expires in owners if expires > now and not is_dead(host, pid)}

    def changed(self) -> bool:
        before, self._version = self._version, self.file.version()
        return self._version != before

    def claimable(self, worker: str, served: Sequence[str], now: float) -> Iterator[RunRow]:
        alive = {worker, *self.living(now)}
        dead = [owner for (owner,) in self.file.run(statements.OWNERS).fetchall() if owner not in alive]
        each = [self._owned(owner, function) for owner in (None, *dead) for function in served]
        return (self._row(*row) for row in heapq.merge(*each))

    def _owned(self, owner: str | None, function: str) -> Iterator[tuple[Any, ...]]:
        """The runs of a function that an owner has, or nobody, oldest first: whoever needs few reads few."""
        n, limit = 0, _FEW
        while rows := self.file.run(statements.OWNED, owner, function, n, limit).fetchall():
            yield from rows
            n, limit = rows[-1][0], _SCAN

    def lost(self, worker: str, run_ids: Sequence[str]) -> list[str]:
        return [id for (id,) in self.file.run(statements.LOST, worker, json.dumps(run_ids)).fetchall()]

    def ended(self, run_ids: Sequence[str]) -> list[str]:
        return [id for (id,) in self.file.run(statements.ENDED, json.dumps(run_ids)).fetchall()]

    def take(self, row: RunRow) -> None:
        self.file.run(
            "UPDATE runs SET status = ?, owner = ?, fence = ?, crashes = ?, singleton = ?, ended_at = ?,"
            " crash_notes = ?, rested = ? WHERE id = ?",
            row.status.value,
            row.owner,
            row.fence,
            json.dumps(row.crashes),
            row.singleton,
            row.ended_at or None,
            row.crash_notes or None,
            row.rested or None,
            row.id,
        )

    # -- runs and records

    def get(self, run_id: str) -> RunRow | None:
        row = self.file.run(f"{statements.RUN} WHERE id = ?", run_id).fetchone()
        return None if row is None else self._row(*row)

    def rows(self, function: str | None, status: RunStatus | None, limit: int) -> list[RunRow]:
        rows = self.file.run(
            f"{statements.RUN} WHERE (?1 IS NULL OR function = ?1) AND (?2 IS NULL OR status = ?2)"
            " ORDER BY n DESC LIMIT ?3",
            function,
            status,
            limit,
        )
        return [self._row(*row) for row in rows.fetchall()]

    def scan(self, where: RunFilter, place: int | None, *, back: bool) -> Iterator[tuple[int, RunRow]]:
        looks = sqlite_search.looks(where)
        order, beyond = ("ASC", ">") if back else ("DESC", "<")
        while True:
            behind = "" if place is None else f" AND n {beyond} {place}"
            end = f"ORDER BY n {order} LIMIT {_SCAN}"
            each = (f"SELECT * FROM ({statements.RUN} WHERE {condition}{behind} {end})" for condition, _ in looks)
            values = [value for _, given in looks for value in given]
            rows = self.file.run(f"{' UNION ALL '.join(each)} {end}", *values).fetchall()
            for row in rows:
                place = row[0]
                yield row[0], self._row(*row)
            if len(rows) < _SCAN:
                return

    def count_page(
        self, where: RunFilter, place: int, living: Collection[str]
    ) -> tuple[dict[RunStatus, int], int | None]:
        sql, values = sqlite_search.standings(where)
        (last,) = self.file.run("SELECT coalesce(max(n), 0) FROM runs").fetchone()
        end = place + _COUNTED
        rows = self.file.run(sql, json.dumps(list(living)), place, end, *values).fetchall()
        counts = {RunStatus(status): count for status, count in rows}
        wanted = where.statuses or counts.keys()
        return {status: counts[status] for status in counts if status in wanted}, end if end < last else None

    def _row(self, n: int, id: str, function: str, status: str, *rest: Any) -> RunRow:
        parent, singleton, owner, fence, crashes, created_at, *found_by, crash_notes, rested = rest
        root, session_key, tags, ended_at = found_by
        self._remember(id, n)
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
            root=root,
            session_key=session_key,
            tags=tuple(json.loads(tags or "[]")),
            ended_at=ended_at or 0.0,
            crash_notes=crash_notes or "",
            rested=rested or 0,
        )

    def insert(self, row: RunRow) -> None:
        cursor = self.file.run(
            statements.INSERT,
            row.id,
            row.function,
            row.status.value,
            row.parent,
            row.singleton,
            row.owner,
            row.fence,
            json.dumps(row.crashes),
            row.created_at,
            row.root,
            row.session_key,
            json.dumps(row.tags) if row.tags else None,
            row.ended_at or None,
        )
        n = cursor.lastrowid or 0
        self._remember(row.id, n)
        for tag in row.tags:
            self.file.run("INSERT INTO tags VALUES (?, ?)", tag, n)

    def _forget_numbers(self) -> None:
        self._numbers.clear()  # those of runs that are not there after all

    def _remember(self, run_id: str, n: int) -> None:
        if len(self._numbers) >= REMEMBERED:
            self._numbers.clear()
        self._numbers[run_id] = n

    def _number(self, run_id: str) -> int:
        """The number of a run, 0 for none."""
        known = self._numbers.get(run_id)
        if known is not None:
            return known
        row = self.file.run("SELECT n FROM runs WHERE id = ?", run_id).fetchone()
        if row is None:
            return 0
        self._remember(run_id, row[0])
        return int(row[0])

    def append(self, record: StepRecord, fence: int) -> None:
        if self.file.inside and record.kind == "step" and record.attempt == 1 and record.status != "retrying":
            self._append(record, fence)  # nearly all: one statement, and nothing else to note
            return
        with self.transaction():
            self._append(record, fence)
            self._note(record)

    def _note(self, record: StepRecord) -> None:
        """Keep the list of what holds runs up."""
        n = self._number(record.run_id)
        if may_open(record):
            id, retrying = (n << RUN_SHIFT) + record.seq, record.status == "retrying"
            self.file.run("REPLACE INTO open_steps VALUES (?, ?, ?, ?)", n, record.key, id, retrying)
        elif may_settle(record):
            self.file.run("DELETE FROM open_steps WHERE run = ? AND key = ?", n, record.key)

    def open_records(self, run_id: str) -> list[StepRecord]:
        n = self._number(run_id)
        first = n << RUN_SHIFT
        rows = self.file.run(statements.OPEN, n, first + (1 << RUN_SHIFT)).fetchall()
        return [self._record(run_id, row[0] - first, first, row) for row in rows]

    def event_waits(self, event: str) -> Iterator[Sequence[WaitingRun]]:
        n = 0
        while numbers := self.file.run(statements.WAITING, n, _SCAN).fetchall():
            first, n = n, numbers[-1][0]
            found = self.file.run(statements.WAITING_FOR, first, n, event).fetchall()
            if found:
                yield [WaitingRun(id, created, until / 1e3, bool(fork)) for id, created, until, fork in found]

    def _append(self, record: StepRecord, fence: int) -> None:
        n = self._number(record.run_id)
        output = None if record.output is None else packed(record.output)
        if isinstance(output, bytes) and record.kind == "run" and record.seq:
            output = self._packed_result(record, n << RUN_SHIFT)
        fields = _fields(record, output)
        try:
            done = self.file.run(
                statements.APPEND, (n << RUN_SHIFT) + record.seq, *fields, _checksum(record.seq, fields), n, fence
            ).rowcount
        except sqlite3.IntegrityError:
            done = 0  # another worker wrote this record first
        if not done:
            raise self._refusal(record, fence)

    def _packed_result(self, record: StepRecord, first: int) -> str | bytes:
        """What is written of a run's result, which may repeat what one of its last steps came to."""
        text = record.output or ""
        sql = "SELECT id FROM records WHERE id >= ? AND id < ? AND typeof(output) = 'blob' ORDER BY id DESC LIMIT 1"
        row = self.file.run(sql, max(first + 1, first + record.seq - _BACK), first + record.seq).fetchone()
        return packed(text) if row is None else packed_beside(text, row[0], self._output(row[0]))

    def _output(self, id: int) -> str:
        """What the record of an id came to."""
        row = self.file.run("SELECT * FROM records WHERE id = ?", id).fetchone()
        first = id >> RUN_SHIFT << RUN_SHIFT
        (run_id,) = self.file.run("SELECT id FROM runs WHERE n = ?", id >> RUN_SHIFT).fetchone()
        if row is None:
            raise JournalCorruptError(run_id=run_id, seq=id - first)
        return self._record(run_id, id - first, first, row).output or ""

    def _record(self, run_id: str, seq: int, first: int, row: tuple[Any, ...]) -> StepRecord:
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
            None if output is None else unpacked(output, self._output),
            None if error is None else json.loads(error),
            due,
            at / 1e3,
            took / 1e6,
            v,
        )

    def _refusal(self, record: StepRecord, fence: int) -> DurablyError:
        row = self.get(record.run_id)
        if row is not None and row.fence == fence and not row.status.final and self.count(row.id) < record.seq:
            return JournalError(f"{self.path}: record {record.seq} of run {row.id} comes before the one before it")
        return StaleRunError(run_id=record.run_id, fence=fence)

    def records(self, run_id: str) -> list[StepRecord]:
        found = self.records_since(run_id, 0)
        if not found:
            raise JournalCorruptError(run_id=run_id, seq=0)
        return found

    def records_since(self, run_id: str, seq: int) -> list[StepRecord]:
        first, rows = self._rows_of(run_id, seq)
        return [self._record(run_id, number, first, row) for number, row in enumerate(rows, seq)]

    def records_of(self, run_id: str, step_ids: tuple[str, ...]) -> list[StepRecord]:
        # The key is what a row begins with: of the others, nothing more is read.
        named = " OR ".join(f"key GLOB '{each}*' OR key GLOB '*/{each}*'" for each in step_ids)
        last = "SELECT max(id) FROM records WHERE id < ?2"
        first, rows = self._rows_of(run_id, 0, f"AND (id IN (?1, ({last})) OR {named})")
        return [self._record(run_id, row[0] - first, first, row) for row in rows]

    def _rows_of(self, run_id: str, seq: int, condition: str = "") -> tuple[int, list[tuple[Any, ...]]]:
        """The id of a run's first record, and the rows of its records from a number on, under a condition."""
        first = self._number(run_id) << RUN_SHIFT
        sql = f"SELECT * FROM records WHERE id >= ?1 AND id < ?2 {condition} ORDER BY id"
        try:
            return first, self.file.run(sql, first + seq, first + (1 << RUN_SHIFT)).fetchall()
        except (JournalError, sqlite3.DatabaseError) as error:
            if _is_damage(error):
                raise JournalCorruptError(run_id=run_id, seq=0) from error
            raise

    def count(self, run_id: str) -> int:
        first = self._number(run_id) << RUN_SHIFT
        (last,) = self.file.run(
            "SELECT max(id) FROM records WHERE id >= ? AND id < ?", first, first + (1 << RUN_SHIFT)
        ).fetchone()
        return int(last) - first + 1

    def first_record(self, run_id: str) -> StepRecord:
        first = self._number(run_id) << RUN_SHIFT
        row = self.file.run("SELECT * FROM records WHERE id = ?", first).fetchone()
        if row is None:
            raise JournalCorruptError(run_id=run_id, seq=0)
        return self._record(run_id, 0, first, row)

    def last_record(self, run_id: str) -> StepRecord:
        first = self._number(run_id) << RUN_SHIFT
        row = self.file.run(
            "SELECT * FROM records WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1", first, first + (1 << RUN_SHIFT)
        ).fetchone()
        return self._record(run_id, row[0] - first, first, row)

    def set_status(self, run_id: str, status: RunStatus, ended_at: float) -> None:
        sql = "UPDATE runs SET status = ?, owner = NULL, ended_at = ? WHERE id = ?"
        self.file.run(sql, status.value, ended_at or None, run_id)

    def live_singletons(self, function: str, singleton: str) -> Sequence[str]:
        # Two questions in one, since each index is one of a status.
        by_status = (f"SELECT n, id FROM runs WHERE status = '{each}' AND {{0}}" for each in statements.LIVE)
        sql = " UNION ALL ".join(by_status).format("function = ?1 AND singleton = ?2")
        return [id for _, id in self.file.run(f"{sql} ORDER BY n", function, singleton).fetchall()]

    def live_children(self, run_id: str) -> Sequence[str]:
        rows = self.file.run(f"SELECT id FROM runs WHERE parent = ? AND status IN {statements.LIVE}", run_id)
        return [id for (id,) in rows.fetchall()]

    # -- events

    def cursor(self) -> int:
        (seq,) = self.file.run("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        return int(seq)

    def events_since(self, cursor: int, name: str) -> list[Received]:
        rows = self.file.run("SELECT seq, event, at FROM events WHERE seq > ? AND name = ? ORDER BY seq", cursor, name)
        return [Received(seq, Event.model_validate_json(event), at) for seq, event, at in rows.fetchall()]

    def log_page(self, cursor: int, names: Collection[str], limit: int) -> tuple[list[Received], int]:
        rows = self.file.run(statements.LOG_PAGE, cursor, limit).fetchall()
        found = [Received(n, Event.model_validate_json(event), at) for n, name, event, at in rows if name in names]
        return found, rows[-1][0] if rows else self.cursor()

    def received(self, event: Event) -> Event | None:
        row = self.file.run("SELECT event FROM events WHERE id = ? AND name = ?", event.id, event.name).fetchone()
        return None if row is None else Event.model_validate_json(row[0])

    def next_due(self) -> float | None:
        (due,) = self.file.run("SELECT min(due) FROM scheduled").fetchone()
        return None if due is None else float(due)

    def subscriptions(self) -> Sequence[Subscription]:
        return [
            Subscription(
                id,
                tuple(json.loads(triggers)),
                Singleton(*json.loads(rule)) if rule else None,
                StartRules.from_json(rules),
            )
            for id, triggers, rule, rules in self.file.run(statements.FUNCTIONS).fetchall()
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
        sql = "SELECT id, event FROM scheduled WHERE due <= ? ORDER BY due, id LIMIT ?"
        rows = self.file.run(sql, now, _DELIVERED).fetchall()
        for id, _ in rows:
            self.file.run("DELETE FROM scheduled WHERE id = ?", id)
        return [Event.model_validate_json(event) for _, event in rows]


def _is_damage(error: Exception) -> bool:
    """Whether waiting cannot help: the file itself is wrong, unlike a full disk or a lock."""
    code = getattr(error.__cause__ or error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _fields(record: StepRecord, output: str | bytes | None) -> tuple[Any, ...]:
    """The columns of a record, without its id and its checksum; a usual value is NULL."""
    return (
        record.key or None,
        None if record.kind == "step" else record.kind,
        None if record.status == "completed" else record.status,
        record.attempt,
        record.name or None,
        record.input or None,
        output,
        None if record.error is None else json.dumps(record.error, ensure_ascii=False),
        record.due,
        round(record.at * 1e3),
        round(record.took * 1e6),
        record.v,
    )


def _checksum(seq: int, fields: tuple[Any, ...]) -> int:
    """The checksum of a record with this number."""
    text = "\0".join(map(str, fields))
    return zlib.crc32(text.encode(), seq) & 0x7FFFFFFF  # 31 bits: SQLite keeps them in 4 bytes
