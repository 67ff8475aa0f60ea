"""The pieces of streamed answers in a SQLite file: the one of a SQLite backend, or one of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from durably.backends.replay.file_thread import FileThread
from durably.backends.replay.patience import patiently
from durably.backends.replay.sqlite_file import RUN_SHIFT, SQLiteFile
from durably.core.deltas import DeltaStore, StoredDelta
from durably.core.model import StreamedDelta

__all__ = ["SQLiteDeltas"]

T = TypeVar("T")

BUSY_SECONDS = 1.0
"""How long a step waits with the pieces of its answer while another process writes, before it goes on without them."""


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
        self._thread = FileThread(SQLiteFile(path, synchronous="NORMAL"))

    async def append(self, pieces: Sequence[StoredDelta]) -> None:
        rows = [(each.delta.run_id, each.place, _text(each.delta)) for each in pieces]

        def append(file: SQLiteFile) -> None:
            with file.transaction():
                for row in rows:
                    file.run(_APPEND, *row)

        await self._patiently(append)

    async def read(self, run_id: str, start: int) -> list[StoredDelta]:
        sql = "SELECT number, place, delta FROM deltas WHERE run = ? AND number >= ? ORDER BY number"
        rows = await self._patiently(lambda file: file.run(sql, run_id, start).fetchall())
        return [StoredDelta(_delta(run_id, text), place, number) for number, place, text in rows]

    async def delete(self, run_id: str) -> None:
        def delete(file: SQLiteFile) -> None:
            with file.transaction():
                file.run("DELETE FROM deltas WHERE run = ?", run_id)

        await self._patiently(delete)

    async def _patiently(self, call: Callable[[SQLiteFile], T]) -> T:
        return await patiently(lambda: self._thread.run(call), BUSY_SECONDS)

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.close)


# Records may have come while the pieces were on their way: who has read those reads no piece from before them.
_APPEND = f"""
INSERT INTO deltas SELECT ?1, coalesce(max(number), -1) + 1, CASE WHEN ?2 IS NOT NULL THEN max(?2, (
    SELECT coalesce(max(records.id) - (n << {RUN_SHIFT}) + 1, 0) FROM runs
    JOIN records ON records.id BETWEEN n << {RUN_SHIFT} AND (n + 1 << {RUN_SHIFT}) - 1 WHERE runs.id = ?1
)) END, ?3 FROM deltas WHERE run = ?1
"""


def _text(delta: StreamedDelta) -> str:
    return delta.model_dump_json(exclude={"run_id", "function"}, exclude_defaults=True)


def _delta(run_id: str, text: str) -> StreamedDelta:
    found = StreamedDelta.model_validate_json(f'{{"run_id":"",{text[1:]}')
    return found.model_copy(update={"run_id": run_id})
