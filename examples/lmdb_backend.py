"""A backend of one's own: the replay engine on LMDB, a key-value file that several processes share.

All that the engine needs of a storage stands here. The rules (what a commit does, how an event starts functions, how a
cancel reaches children) come with `Journal`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.clock import Clock, SystemClock
from durably.backends.replay.journal import Journal, Received, RunRow, Subscription
from durably.core import Capabilities, Event, Function, RunStatus, Singleton
from durably.core.errors import JournalError, StaleRunError
from durably.core.history import StepRecord

TABLES = ("runs", "ids", "records", "live", "events", "event_ids", "scheduled", "functions", "workers")
SIZE = 2**30  # bytes the file may come to: LMDB maps so much memory, and fills it as it goes


class LMDBBackend(ReplayBackend):
    """Runs durable functions in this process and keeps them in one LMDB file."""

    name = "lmdb"
    capabilities = Capabilities(
        durable=True, multi_process=True, max_payload_bytes=8 * 2**20, gaps={"retention": "it keeps every run"}
    )

    def __init__(
        self, path: Path, functions: Sequence[Function[Any, Any]] = (), *, clock: Clock | None = None, **options: Any
    ) -> None:
        super().__init__(
            functions, journal=LMDBJournal(path), clock=clock or SystemClock(), threads=True, poll=0.2, **options
        )


class LMDBJournal(Journal):
    """Runs, records and events as JSON under ordered keys.

    ``runs`` has each row under its number, ``records`` each record under that number and its place, so that the records
    of a run lie together and in order. ``live`` lists the runs that have not ended.
    """

    _open: ClassVar[dict[Path, tuple[lmdb.Environment, int]]] = {}  # LMDB allows one environment a file and process

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing: lmdb.Transaction | None = None
        self._seen = 0

    def open(self) -> None:
        known, users = self._open.get(self.path, (None, 0))
        env = known or lmdb.open(str(self.path), subdir=False, map_size=SIZE, max_dbs=len(TABLES), mode=0o600)
        self._open[self.path] = env, users + 1
        self._env = env
        self._tables = {name: env.open_db(name.encode()) for name in TABLES}

    def close(self) -> None:
        env, users = self._open.pop(self.path)
        if users > 1:
            self._open[self.path] = env, users - 1
        else:
            env.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._writing is not None:  # part of one that is open
            yield
            return
        try:
            with self._env.begin(write=True) as self._writing:
                yield
        except lmdb.Error as error:  # the file is full, or the disk: what is to be written waits in hand
            raise JournalError(f"{self.path}: {error}") from error
        finally:
            self._writing = None

    def _put(self, table: str, key: bytes, value: Any) -> None:
        """Write one pair, or delete it where the value is ``None``."""
        with self.transaction():
            assert self._writing is not None
            if value is None:
                self._writing.delete(key, db=self._tables[table])
            else:
                self._writing.put(key, json.dumps(value).encode(), db=self._tables[table])

    def _get(self, table: str, key: bytes) -> Any:
        value: Any = (self._writing or self._env.begin()).get(key, db=self._tables[table])
        return None if value is None else json.loads(value)

    def _scan(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        """The pairs whose keys begin with a prefix, in the order of the keys."""
        cursor: Any = (self._writing or self._env.begin()).cursor(self._tables[table])
        pairs: Iterable[tuple[bytes, bytes]] = cursor.iternext() if cursor.set_range(prefix) else ()
        for key, value in takewhile(lambda pair: pair[0].startswith(prefix), pairs):
            yield key, json.loads(value)

    def _last(self, table: str, prefix: bytes = b"") -> tuple[bytes, Any] | None:
        """The last of the pairs whose keys begin with a prefix."""
        cursor: Any = (self._writing or self._env.begin()).cursor(self._tables[table])
        found = cursor.prev() if cursor.set_range(prefix + b"\xff") else cursor.last()
        return (cursor.key(), json.loads(cursor.value())) if found and cursor.key().startswith(prefix) else None

    def _next(self, table: str) -> int:
        """One more than the number of the last pair."""
        last = self._last(table)
        return 1 if last is None else int(last[0], 16) + 1

    def register(self, subscriptions: Sequence[Subscription]) -> None:
        with self.transaction():
            for each in subscriptions:
                rule = each.singleton and [each.singleton.key, each.singleton.mode]
                self._put("functions", _name(each.function), [each.function, each.triggers, rule])

    def subscriptions(self) -> Sequence[Subscription]:
        return [
            Subscription(function, tuple(triggers), rule and Singleton(*rule))
            for _, (function, triggers, rule) in self._scan("functions")
        ]

    def lease(self, worker: str, until: float) -> None:
        self._put("workers", worker.encode(), until)

    def bury(self, worker: str) -> None:
        self.lease(worker, 0.0)

    def release(self, worker: str) -> None:
        with self.transaction():
            for row in list(self._live()):
                if row.owner == worker:
                    self.take(replace(row, owner=None))
            self._put("workers", worker.encode(), None)

    def changed(self) -> bool:
        before, self._seen = self._seen, int(self._env.info()["last_txnid"])
        return self._seen != before

    def claimable(self, worker: str, served: Sequence[str], now: float) -> Sequence[RunRow]:
        taken = {worker, *self.living(now)}
        return [row for row in self._live() if row.function in served and row.owner not in taken]

    def living(self, now: float) -> list[str]:
        return [key.decode() for key, until in self._scan("workers") if until > now]

    def insert(self, row: RunRow) -> None:
        number = _key(self._next("runs"))
        self._put("ids", _name(row.id), number.decode())
        self.take(row)

    def take(self, row: RunRow) -> None:
        number = self._number(row.id)
        self._put("runs", number, asdict(row))
        self._put("live", number, None if row.status.final else row.id)

    def _number(self, run_id: str) -> bytes:
        return str(self._get("ids", _name(run_id))).encode()

    def get(self, run_id: str) -> RunRow | None:
        data = self._get("runs", self._number(run_id))
        return None if data is None else RunRow.from_data(data)

    def _live(self) -> Iterator[RunRow]:
        return (RunRow.from_data(self._get("runs", number)) for number, _ in self._scan("live"))

    def rows(self, function: str | None, status: RunStatus | None, limit: int) -> list[RunRow]:
        found = [RunRow.from_data(data) for _, data in self._scan("runs")]
        chosen = [row for row in reversed(found) if function in (None, row.function) and status in (None, row.status)]
        return chosen[:limit]

    def set_status(self, run_id: str, status: RunStatus, ended_at: float) -> None:
        row = RunRow.from_data(self._get("runs", self._number(run_id)))
        self.take(replace(row, status=status, owner=None, ended_at=ended_at))

    def live_singletons(self, function: str, singleton: str) -> Sequence[str]:
        return [row.id for row in self._live() if row.function == function and row.singleton == singleton]

    def live_children(self, run_id: str) -> Sequence[str]:
        return [row.id for row in self._live() if row.parent == run_id]

    def append(self, record: StepRecord, fence: int) -> None:
        with self.transaction():  # the check and the write are one: no other process comes between them
            row = RunRow.from_data(self._get("runs", self._number(record.run_id)))
            count = self.count(record.run_id)
            if row.fence != fence or count != record.seq or (row.status.final and count):
                raise StaleRunError(run_id=record.run_id, fence=fence)
            self._put("records", self._number(record.run_id) + _key(record.seq), record.to_json())

    def records(self, run_id: str) -> list[StepRecord]:
        return [StepRecord.from_json(line) for _, line in self._scan("records", self._number(run_id))]

    def last_record(self, run_id: str) -> StepRecord:
        last = self._last("records", self._number(run_id))
        assert last is not None  # a run has at least its first record
        return StepRecord.from_json(last[1])

    def count(self, run_id: str) -> int:
        last = self._last("records", self._number(run_id))
        return 0 if last is None else int(last[0][8:], 16) + 1

    def cursor(self) -> int:
        return self._next("events") - 1

    def events_since(self, cursor: int, name: str) -> list[Received]:
        found = (Received(int(key, 16), Event(**event), at) for key, (event, at) in self._scan("events"))
        return [each for each in found if each.seq > cursor and each.event.name == name]

    def log(self, event: Event, now: float) -> Received | None:
        if self._is_known(event):
            return None
        seq = self._next("events")
        self._put("event_ids", _name(event.id), seq)
        self._put("events", _key(seq), [event.model_dump(mode="json"), now])
        return Received(seq, event, now)

    def schedule(self, event: Event) -> bool:
        if self._is_known(event) or any(other["id"] == event.id for _, other in self._scan("scheduled")):
            return False
        self._put("scheduled", f"{event.ts:020.6f} ".encode() + _name(event.id), event.model_dump(mode="json"))
        return True

    def _is_known(self, event: Event) -> bool:
        return self._get("event_ids", _name(event.id)) is not None

    def next_due(self) -> float | None:
        return next((event["ts"] for _, event in self._scan("scheduled")), None)

    def take_due(self, now: float) -> Sequence[Event]:
        due = [(key, Event(**event)) for key, event in self._scan("scheduled") if event["ts"] <= now]
        for key, _ in due:
            self._put("scheduled", key, None)
        return [event for _, event in due]


def _key(number: int) -> bytes:
    return f"{number:08x}".encode()


def _name(text: str | None) -> bytes:
    return blake2b((text or "").encode(), digest_size=16).digest()  # LMDB's keys are short, and names need not be
