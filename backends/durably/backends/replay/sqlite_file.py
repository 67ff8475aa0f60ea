"""The SQLite file itself: what makes it ours, how it is opened, and its transactions. Owns no rule about runs."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from durably.core.errors import JournalError

__all__ = ["SQLiteFile"]

logger = logging.getLogger("durably")

BUSY_SECONDS = 1.0
PAGE_BYTES = 1024
"""A quarter of SQLite's default: a commit writes whole pages, and a step's record is small."""
GROWN_BYTES = 128 * 1024
"""The size the write-ahead log is given at the start. A commit that must make a file longer waits for the file system's
own journal too, which is a quarter of its time."""
APPLICATION_ID = 0x64757262

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

# What the rules of flow control remember, and the indices for runs that they hold back, and that wait for their code.
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
CREATE TABLE deltas (
    run TEXT NOT NULL, number INTEGER NOT NULL, place INTEGER, delta TEXT NOT NULL, PRIMARY KEY (run, number)
) WITHOUT ROWID;
ALTER TABLE runs ADD COLUMN crash_notes TEXT;
"""

VERSIONS = (FIRST, SECOND)
"""What makes each version of the file out of the one before. A version that was released is never changed."""


class SQLiteFile:
    """A database in WAL mode with ``synchronous=FULL``, with the tables of a journal.

    Args:
        path: The file.
        synchronous: ``"FULL"``, or ``"NORMAL"`` for what need not survive a power cut: a commit then waits for no disk.
    """

    def __init__(self, path: str | Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self.path = Path(path)
        self._synchronous = synchronous
        self._db: sqlite3.Connection | None = None

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
        # The file is made here, not by SQLite, so that nobody else can read it even for a moment.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare(self._db)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self.close()
            raise JournalError(f"cannot open {self.path}: {error}") from error
        except JournalError:
            self.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        self._is_new(db)  # nothing is written to a file of another program, not even its journal mode
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        with self.transaction():
            version = 0 if self._is_new(db) else self._version(db)
            for statements in VERSIONS[version:]:
                for statement in statements.split(";"):
                    db.execute(statement)
            if version < len(VERSIONS):
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
        version = self._version(db)
        if tables and application != APPLICATION_ID:
            raise JournalError(f"{self.path} is a database of another program: choose another path")
        if version > len(VERSIONS):
            raise JournalError(
                f"{self.path} was written by a newer durably (version {version}, this one knows {len(VERSIONS)}): "
                "upgrade durably"
            )
        return not tables

    def _version(self, db: sqlite3.Connection) -> int:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return int(version)

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Run one statement.

        Raises:
            JournalError: If the database refuses, for another reason than a constraint.
        """
        if self._db is None:
            raise JournalError(f"{self.path} is not open")
        try:
            return self._db.execute(sql, values)
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise JournalError(f"{self.path}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A block that is committed as a whole at its end, or not at all if it raises."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._db is not None and self._db.in_transaction:
                self._db.rollback()
            raise
