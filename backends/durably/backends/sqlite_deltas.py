"""The pieces of streamed answers in a SQLite file: the one of a SQLite backend, or one of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from durably.backends.replay.sqlite_file import SQLiteFile
from durably.core.deltas import DeltaStore, StoredDelta
from durably.core.model import StreamedDelta

__all__ = ["SQLiteDeltas"]


class SQLiteDeltas(DeltaStore):
    """Keeps pieces in a SQLite file, which several processes may share.

    They are written without waiting for the disk: they survive the end of the process, but not a power cut. The file is
    opened at the first use.

    Args:
        path: The file. It is created if it does not exist, readable by its owner only.
    """

    def __init__(self, path: str | Path) -> None:
        # A connection of its own: that of the journal waits for the disk at each commit. "OFF" would not be safe in a
        # file that is shared: its checkpoints do not wait for the disk either.
        self._file = SQLiteFile(path, synchronous="NORMAL")

    def append(self, pieces: Sequence[StoredDelta]) -> None:
        file = self._opened()
        with file.transaction():
            for piece in pieces:
                delta = piece.delta
                text = delta.model_dump_json(exclude={"run_id", "function"}, exclude_defaults=True)
                file.run(_APPEND, delta.run_id, piece.place, text)

    def read(self, run_id: str, start: int) -> list[StoredDelta]:
        sql = "SELECT number, place, delta FROM deltas WHERE run = ? AND number >= ? ORDER BY number"
        rows = self._opened().run(sql, run_id, start).fetchall()
        return [StoredDelta(_delta(run_id, text), place, number) for number, place, text in rows]

    def delete(self, run_id: str) -> None:
        self._opened().run("DELETE FROM deltas WHERE run = ?", run_id)

    def close(self) -> None:
        self._file.close()

    def _opened(self) -> SQLiteFile:
        if not self._file.is_open:
            self._file.open()
        return self._file


_APPEND = """
INSERT INTO deltas SELECT ?1, coalesce(max(number), -1) + 1, ?2, ?3 FROM deltas WHERE run = ?1
"""


def _delta(run_id: str, text: str) -> StreamedDelta:
    found = StreamedDelta.model_validate_json(f'{{"run_id":"",{text[1:]}')
    return found.model_copy(update={"run_id": run_id})
