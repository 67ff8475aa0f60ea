"""What the rules of flow control remember, in a SQLite file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from durably.backends.replay.flow.store import Entry, FlowStore, Kind
from durably.backends.replay.sqlite_file import SQLiteFile

__all__ = ["SQLiteFlowStore"]


class SQLiteFlowStore(FlowStore):
    """Entries in the table ``flow`` of a journal's file.

    Args:
        file: The file, which the journal opens and closes.
    """

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file

    def put(self, entry: Entry) -> None:
        self._file.run(
            "INSERT INTO flow VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET "
            "gate = excluded.gate, rank = excluded.rank, due = excluded.due, value = excluded.value",
            entry.kind,
            entry.id,
            entry.gate,
            entry.rank,
            entry.due,
            json.dumps(entry.value),
        )

    def drop(self, kind: Kind, id: str) -> None:
        self._file.run("DELETE FROM flow WHERE kind = ? AND id = ?", kind, id)

    def find(self, kind: Kind, id: str) -> Entry | None:
        return next(iter(self._entries("kind = ? AND id = ?", kind, id)), None)

    def list(self, kind: Kind, gate: str, limit: int | None = None) -> Sequence[Entry]:
        at_most = -1 if limit is None else limit
        return self._entries("kind = ? AND gate = ? ORDER BY rank, n LIMIT ?", kind, gate, at_most)

    def count(self, kind: Kind, gate: str) -> int:
        (number,) = self._file.run("SELECT count(*) FROM flow WHERE kind = ? AND gate = ?", kind, gate).fetchone()
        return int(number)

    def all(self, kind: Kind) -> Sequence[Entry]:
        return self._entries("kind = ? ORDER BY n", kind)

    def due(self, kind: Kind, now: float) -> Sequence[Entry]:
        return self._entries("kind = ? AND due <= ? ORDER BY due, rank, n", kind, now)

    def next_due(self, kinds: Iterable[Kind]) -> float | None:
        found = [self._file.run("SELECT min(due) FROM flow WHERE kind = ?", kind).fetchone()[0] for kind in kinds]
        return min((float(due) for due in found if due is not None), default=None)

    def _entries(self, condition: str, *values: Any) -> Sequence[Entry]:
        rows = self._file.run(f"SELECT kind, id, gate, rank, due, value FROM flow WHERE {condition}", *values)
        return [
            Entry(kind=kind, id=id, gate=gate, rank=rank, due=due, value=json.loads(value))
            for kind, id, gate, rank, due, value in rows.fetchall()
        ]
