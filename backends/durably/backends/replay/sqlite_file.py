"""The SQLite file itself: what makes it ours, how it is opened, and its transactions. Owns no rule about runs."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar

from durably.backends.replay.sqlite_lock import LockWatch
from durably.core.errors import JournalError
from durably.core.mistakes import check_path

__all__ = ["SQLiteFile"]

logger = logging.getLogger("durably")

T = TypeVar("T")

BUSY_SECONDS = 0.1
"""How long one try waits for the lock of another writer. Who can wait longer tries again."""
BUSY_LOOK_SECONDS = 0.002
"""How often it is looked at meanwhile."""
READ_SECONDS = 0.005
"""How long a read waits: only where another process has just opened the file after a crash."""
PAGE_BYTES = 1024
"""A quarter of SQLite's default: a commit writes whole pages, and a step's record is small."""
GROWN_BYTES = 128 * 1024
"""The size the write-ahead log is given at the start. A commit that must make a file longer waits for the file system's
own journal too, which is a quarter of its time."""
APPLICATION_ID = 0x64757262
NUMBERS = tuple(map(str, range(1, 33)))
"""The names of numbered parameters: a statement has 32 values at most."""
RUN_SHIFT = 24
"""Bits for the number of a record within its run: 16 million records a run."""

# The id of a record is its run's n * 2**24 + its seq: the records of a run lie together, in order, and no second index
# is needed. A field of a record that holds its usual value is NULL, which takes no room; `at` is in milliseconds and
# `took` in microseconds.
FIRST = """
CREATE TABLE runs (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, function TEXT NOT NULL, status TEXT NOT NULL, parent TEXT,
    singleton TEXT, owner TEXT, fence INTEGER NOT NULL, crashes TEXT NOT NULL, created_at REAL NOT NULL
);
CREATE INDEX live_runs ON runs (function, singleton) WHERE status = 'running';
CREATE INDEX children ON runs (parent) WHERE parent IS NOT NULL;
CREATE TABLE records (
    id INTEGER PRIMARY KEY, key TEXT, kind TEXT, status TEXT, attempt INTEGER, name TEXT, input TEXT, output TEXT,
    error TEXT, due REAL, at INTEGER, took INTEGER, v INTEGER, crc INTEGER
);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, event TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE scheduled (id TEXT PRIMARY KEY, event TEXT NOT NULL, due REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE functions (id TEXT PRIMARY KEY, triggers TEXT NOT NULL, singleton TEXT) WITHOUT ROWID;
CREATE TABLE workers (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
"""

# The rules of flow control are remembered, with what they hold back. What holds a live run up is listed, so that
# where runs stand can be told without reading all that they recorded. Runs that wait for their code have an index, and
# so have those that have ended, in the order in which they are forgotten; the numbers of those whose records still go;
# who works here. A row of appends holds several; its id is its session's n * 2**32 + the number
# of the first of them.
SECOND = """
ALTER TABLE functions ADD COLUMN rules TEXT;
CREATE INDEX waiting_runs ON runs (function, singleton) WHERE status = 'waiting';
CREATE INDEX stuck_runs ON runs (function, singleton) WHERE status = 'stuck';
CREATE TABLE flow (
    n INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, gate TEXT NOT NULL, rank REAL NOT NULL, due REAL,
    value TEXT NOT NULL, UNIQUE (kind, id)
);
CREATE INDEX flow_gates ON flow (kind, gate, rank);
CREATE INDEX flow_due ON flow (kind, due) WHERE due IS NOT NULL;
ALTER TABLE runs ADD COLUMN root TEXT;
ALTER TABLE runs ADD COLUMN session_key TEXT;
ALTER TABLE runs ADD COLUMN tags TEXT;
ALTER TABLE runs ADD COLUMN ended_at REAL;
CREATE TABLE tags (tag TEXT NOT NULL, run INTEGER NOT NULL, PRIMARY KEY (tag, run)) WITHOUT ROWID;
CREATE TABLE open_steps (
    run INTEGER NOT NULL, key TEXT NOT NULL, id INTEGER NOT NULL, retrying INTEGER NOT NULL, PRIMARY KEY (run, key)
) WITHOUT ROWID;
UPDATE runs SET ended_at = (
    SELECT at / 1000.0 FROM records WHERE id >= n << 24 AND id < (n + 1) << 24 ORDER BY id DESC LIMIT 1
) WHERE status != 'running';
UPDATE runs SET session_key = (
    SELECT json_extract(output, '$.data.session_key') FROM records
    WHERE id = n << 24 AND json_valid(output) AND json_type(output, '$.data.session_key') = 'text'
);
UPDATE runs SET root = (
    WITH RECURSIVE calls (id, depth) AS (
        VALUES (runs.parent, 0)
        UNION ALL SELECT up.parent, depth + 1 FROM calls JOIN runs AS up ON up.id = calls.id WHERE up.parent IS NOT NULL
    )
    SELECT id FROM calls ORDER BY depth DESC LIMIT 1
) WHERE parent IS NOT NULL;
INSERT INTO open_steps
    SELECT n, coalesce(key, ''), max(records.id), records.status = 'retrying' FROM runs
    JOIN records ON records.id >= n << 24 AND records.id < (n + 1) << 24
    WHERE runs.status IN ('running', 'failed') AND (
        records.status = 'retrying' OR records.status = 'started' AND kind IN ('invoke', 'sleep', 'wait_for_event')
    ) AND NOT EXISTS (
        SELECT 1 FROM records AS later WHERE later.id > records.id AND later.id < (n + 1) << 24
        AND later.key = records.key AND later.status IS NOT 'retrying'
    ) GROUP BY n, key;
CREATE INDEX runs_of_function ON runs (function);
CREATE INDEX runs_of_root ON runs (root) WHERE root IS NOT NULL;
CREATE INDEX runs_of_session ON runs (session_key) WHERE session_key IS NOT NULL;
CREATE INDEX failed_runs ON runs (status) WHERE status IN ('failed', 'cancelled', 'skipped');
CREATE INDEX retrying_runs ON open_steps (run) WHERE retrying;
CREATE INDEX ended_runs ON runs (function) WHERE status IN ('completed', 'failed', 'cancelled', 'skipped');
CREATE TABLE forgotten (n INTEGER PRIMARY KEY);
CREATE TABLE worker_details (id TEXT PRIMARY KEY, details TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE deltas (
    run TEXT NOT NULL, number INTEGER NOT NULL, place INTEGER, delta TEXT NOT NULL, PRIMARY KEY (run, number)
) WITHOUT ROWID;
ALTER TABLE runs ADD COLUMN crash_notes TEXT;
ALTER TABLE runs ADD COLUMN rested INTEGER;
CREATE INDEX owners ON runs (owner, function) WHERE status IN ('running', 'stuck');
CREATE INDEX live_in_order ON runs (status) WHERE status IN ('running', 'waiting', 'stuck');
CREATE INDEX events_of_name ON events (name);
CREATE INDEX scheduled_due ON scheduled (due, id);
CREATE TABLE sessions (n INTEGER PRIMARY KEY, session_key TEXT NOT NULL UNIQUE, appends INTEGER NOT NULL);
CREATE TABLE appends (id INTEGER PRIMARY KEY, messages BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE session_keys (session INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (session, key)) WITHOUT ROWID;
"""

VERSIONS = (FIRST, SECOND)
"""What makes each version of the file out of the one before. A version that was released is never changed."""


class SQLiteFile:
    """A database in WAL mode with ``synchronous=FULL``, with the tables of a journal.

    Args:
        path: The file.
        worker_of: The name of the worker that a process is, empty for none: for messages.
        synchronous: ``"FULL"``, or ``"NORMAL"`` for what need not survive a power cut: a commit then waits for no disk.

    Attributes:
        apart: Whether a transaction is open, or being committed, that what is read now is no part of.
        inside: Whether what is run now is part of the open transaction.
        settle: Called before a transaction that must not wait for the event loop: it ends the one that is open.
        undone: Called when something was rolled back.
    """

    def __init__(
        self,
        path: str | Path,
        worker_of: Callable[[int], str] = lambda pid: "",
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
    ) -> None:
        check_path(path)
        self.path = Path(path).absolute()  # wherever the process goes later
        self._synchronous = synchronous
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._lock = LockWatch(self.path, worker_of)
        self._version_seen = 0
        self._version_asked = False
        self._name = str(self.path)
        self._opened: tuple[int, int] | None = None
        self.apart = False
        self.inside = False
        self.settle: Callable[[], None] = lambda: None
        self.undone: Callable[[], None] = lambda: None

    @property
    def is_open(self) -> bool:
        """Whether it is open here."""
        return self._db is not None

    def open(self) -> None:
        """Open the file, and make it and its tables if they are not there.

        Raises:
            JournalError: If it cannot be opened, or is not one of ours.
        """
        if not self.path.parent.is_dir():
            raise JournalError(f"cannot open {self.path}: there is no directory {self.path.parent}; make it")
        try:
            # The file is made here, not by SQLite, so that nobody else can read it even for a moment.
            made = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
            self._opened = _identity(os.fstat(made))
            os.close(made)
        except OSError as error:
            raise JournalError(f"cannot open {self.path}: {error.strerror}") from error
        # A thread commits what the event loop has begun; they take turns.
        self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(self._db)
            self._db.execute("PRAGMA busy_timeout = 0")
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            busy = self._lock.refuse() if _is_busy(error) else None
            self.close()
            raise busy or JournalError(f"cannot open {self.path}: {error}") from error
        except JournalError:
            self.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        if self._is_new(db):  # nothing is written to a file of another program, not even its journal mode
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes hold only before the first table is made
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        if self._made(db) < len(VERSIONS):  # else nobody's lock is waited for: the file may be opened to be read
            with self.transaction():
                for statements in VERSIONS[self._made(db) :]:
                    for statement in statements.split(";"):
                        db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {len(VERSIONS)}")
        self._grow(db)

    def _grow(self, db: sqlite3.Connection) -> None:
        """Make room in the write-ahead log: what is rolled back stays allocated, and is written over."""
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and log.stat().st_size >= GROWN_BYTES:
            return
        (pages,) = db.execute("PRAGMA cache_size").fetchone()
        db.execute("PRAGMA cache_size = 1")  # so that what is not committed goes to the log as well
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO events VALUES (NULL, '', '', zeroblob(?), 0)", (GROWN_BYTES,))
        except sqlite3.OperationalError as error:  # commits are slower without, and that is all
            logger.info("%s: the write-ahead log was not made longer in advance: %s", self.path, error)
        finally:
            db.rollback()
            db.execute(f"PRAGMA cache_size = {pages}")

    def _is_new(self, db: sqlite3.Connection) -> bool:
        """Whether the file is still empty; raises JournalError if it is not one of ours."""
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        version = self._schema(db)
        if tables and application != APPLICATION_ID:
            raise JournalError(f"{self.path} is a database of another program: choose another path")
        if version > len(VERSIONS):
            raise JournalError(
                f"{self.path} was written by a newer durably (version {version}, this one knows {len(VERSIONS)}): "
                "upgrade durably"
            )
        return not tables

    def _made(self, db: sqlite3.Connection) -> int:
        """The version of the tables that are there, 0 for none."""
        return 0 if self._is_new(db) else self._schema(db)

    def _schema(self, db: sqlite3.Connection) -> int:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Let go of the file."""
        for connection in (self._reader, self._db):
            if connection is not None:
                connection.close()
        self._db = self._reader = None

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Run one statement.

        Raises:
            JournalBusyError: If another process is writing.
            JournalError: If the database refuses, for another reason than a constraint.
        """
        db = self._aside() if self.apart and not self.inside else self._db
        if db is None:
            raise JournalError(f"{self.path} is not open")
        # To Python 3.12 and later a numbered parameter has a name, which is its number.
        given = dict(zip(NUMBERS, values, strict=False)) if "?1" in sql else values
        try:
            cursor = db.execute(sql, given)
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._refused(error) from error
        return cursor

    def _aside(self) -> sqlite3.Connection:
        """The connection for what is read while a transaction is open that it is no part of."""
        if self._reader is None:
            self._reader = sqlite3.connect(
                self.path, timeout=READ_SECONDS, isolation_level=None, check_same_thread=False
            )
        return self._reader

    def _refused(self, error: Exception) -> JournalError:
        return self._lock.refuse() if _is_busy(error) else JournalError(f"{self.path}: {error}")

    def version(self) -> int:
        """A number that is another one once another process has written, at this or at an earlier call."""
        if not self.apart:
            self._version_seen = int(self.run("PRAGMA data_version").fetchone()[0])
        self._version_asked = self.apart  # then looked at with the next transaction
        return self._version_seen

    # -- transactions

    def transaction(self) -> AbstractContextManager[None]:
        """A block that is committed as a whole at its end, or not at all if it raises; or part of the open one."""
        return nullcontext() if self.inside else self._alone()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.settle()
        self.begin()
        self.inside = True
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise
        finally:
            self.inside = False

    def make(self, change: Callable[[], T], *, joins: bool) -> T:
        """Make a change within the open transaction. If it raises, it is undone.

        Args:
            change: What to do.
            joins: Whether something was done before it in this transaction, which stands.
        """
        self.inside = True
        try:
            if joins:
                self.run("SAVEPOINT part")
            result = change()
            if joins:
                self.run("RELEASE part")
            return result
        except BaseException:
            self._undo(joins)
            raise
        finally:
            self.inside = False

    def _undo(self, joins: bool) -> None:
        if joins and self.in_transaction:  # SQLite itself rolls all back where the disk is full, for one
            self.run("ROLLBACK TO part")
            self.run("RELEASE part")
            self.undone()
        else:
            self.rollback()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._db is not None and self._db.in_transaction

    def try_begin(self) -> bool:
        """Begin a transaction, unless another process has the lock."""
        if self._db is None:
            raise JournalError(f"{self.path} is not open")
        self._check_in_place()
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            if _is_busy(error):
                return False
            raise self._refused(error) from error
        if self._lock.refused_since:
            self._lock.pass_by()
        if self._version_asked:
            self._version_asked = False
            (self._version_seen,) = self._db.execute("PRAGMA data_version").fetchone()
        return True

    def _check_in_place(self) -> None:
        """Refuse to write to a file that nobody will find again: it was removed, or another one stands in its place."""
        try:
            found = os.stat(self._name)
        except FileNotFoundError as error:
            raise JournalError(
                f"{self.path} was removed while it was open: put it back, or restart this process to begin a new one"
            ) from error
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror}") from error
        if self._opened is not None and _identity(found) != self._opened:
            raise JournalError(
                f"{self.path} was replaced by another file while it was open: restart this process to go on with that "
                "one, or put the first one back"
            )

    def begin(self) -> None:
        """Begin a transaction as soon as there is the lock.

        Raises:
            JournalBusyError: If another process has it for too long.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while not self.try_begin():
            if time.monotonic() >= deadline:
                raise self._lock.refuse()
            time.sleep(BUSY_LOOK_SECONDS)

    def commit(self) -> None:
        """Commit what is open: it is on the disk when this returns."""
        assert self._db is not None
        try:
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._refused(error) from error

    def rollback(self) -> None:
        """Undo what is open."""
        if self._db is not None and self._db.in_transaction:
            self._db.rollback()
        self.undone()


def _identity(found: os.stat_result) -> tuple[int, int]:
    """What tells a file from all others, whatever their names."""
    return found.st_dev, found.st_ino


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
