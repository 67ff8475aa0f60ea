"""How a SQLite file forgets finished runs, and gives what is free back to the file system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from durably.backends.replay.pruning import NEEDS_PARENT, EndedRun, LoggedEvent, OpenWait, PrunableStorage
from durably.backends.replay.sqlite_file import RUN_SHIFT, SQLiteFile
from durably.core.run_view import RunStatus

__all__ = ["SQLitePruning"]

PAGE = 200
"""How many runs one look reads."""

FREE_PART = 10
"""One part in so many of the file stays free, for what comes next."""

ENDED = f"({', '.join(repr(status.value) for status in RunStatus if status.final)})"
ASKING = f"({', '.join(map(repr, sorted(NEEDS_PARENT)))})"
LAST = (1 << RUN_SHIFT) - 1


class SQLitePruning(PrunableStorage):
    """Forgets the finished runs of a SQLite file.

    A run goes with its row, in one transaction, and from then on nobody finds it. Its number waits in ``forgotten``
    until its records are gone as well, so that a crash in between leaves nothing behind. The highest number stays
    there: no later run is to get it, whose records might meet a writer that still knows the old run.

    Args:
        file: The file.
    """

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file

    def functions(self) -> Sequence[str]:
        # From one function to the next by the index: the runs between are not read.
        sql = f"""
            WITH RECURSIVE each_function (id) AS (
                SELECT min(function) FROM runs WHERE status IN {ENDED}
                UNION ALL
                SELECT (SELECT min(function) FROM runs WHERE function > each_function.id AND status IN {ENDED})
                FROM each_function WHERE each_function.id IS NOT NULL
            )
            SELECT id FROM each_function WHERE id IS NOT NULL
        """
        return [id for (id,) in self._file.run(sql).fetchall()]

    def count_ended(self, function: str) -> int:
        sql = f"SELECT count(*) FROM runs WHERE function = ? AND status IN {ENDED}"
        (count,) = self._file.run(sql, function).fetchone()
        return int(count)

    def ended_runs(self, function: str) -> Iterator[EndedRun]:
        sql = f"""
            SELECT n, id, created_at, (
                SELECT at FROM records WHERE records.id BETWEEN n << {RUN_SHIFT} AND (n << {RUN_SHIFT}) + {LAST}
                ORDER BY records.id DESC LIMIT 1
            )
            FROM runs WHERE function = ? AND status IN {ENDED} AND n > ? ORDER BY n LIMIT {PAGE}
        """
        n = 0
        while rows := self._file.run(sql, function, n).fetchall():
            for n, id, created_at, ended in rows:  # noqa: B007  # the next page begins behind the last
                yield EndedRun(id, created_at, created_at if ended is None else ended / 1e3)

    def forget_runs(self, run_ids: Sequence[str]) -> int:
        places = ", ".join("?" * len(run_ids))
        sql = f"""
            SELECT n, id, tags FROM runs WHERE id IN ({places}) AND status IN {ENDED}
            AND NOT EXISTS (SELECT 1 FROM runs AS p WHERE p.id = runs.parent AND p.status IN {ASKING})
        """
        with self._file.transaction():
            found = self._file.run(sql, *run_ids).fetchall()
            for n, id, tags in found:
                self._file.run("INSERT OR IGNORE INTO forgotten VALUES (?)", n)
                self._file.run("DELETE FROM runs WHERE n = ?", n)
                self._file.run("DELETE FROM deltas WHERE run = ?", id)
                self._file.run("DELETE FROM open_steps WHERE run = ?", n)
                if tags is not None:
                    self._file.run("DELETE FROM tags WHERE run = ?", n)
        return len(found)

    def forget_records(self, limit: int) -> int:
        gone = 0
        with self._file.transaction():
            for (n,) in self._file.run("SELECT n FROM forgotten LIMIT ?", limit).fetchall():
                first = n << RUN_SHIFT
                gone += self._file.run(
                    "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id BETWEEN ? AND ? LIMIT ?)",
                    first,
                    first + LAST,
                    limit - gone,
                ).rowcount
                if gone >= limit:
                    break
                self._file.run("DELETE FROM forgotten WHERE n = ? AND n < (SELECT max(n) FROM forgotten)", n)
        return gone

    def open_waits(self) -> Iterator[Sequence[OpenWait]]:
        runs = f"SELECT n FROM runs WHERE status IN {ASKING} AND n > ? ORDER BY n LIMIT {PAGE}"
        waits = """
            SELECT name, output FROM open_steps JOIN records ON records.id = open_steps.id
            WHERE run = ? AND kind = 'wait_for_event' AND status = 'started'
        """
        n = 0
        while numbers := self._file.run(runs, n).fetchall():
            page: list[OpenWait] = []
            for (n,) in numbers:
                found = self._file.run(waits, n).fetchall()
                page += [OpenWait(name, int(cursor)) for name, cursor in found]
            yield page

    def newest_event(self) -> int:
        (seq,) = self._file.run("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        return int(seq)

    def events(self, seq: int, limit: int) -> Sequence[LoggedEvent]:
        rows = self._file.run("SELECT seq, name, at FROM events WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)
        return [LoggedEvent(*row) for row in rows.fetchall()]

    def forget_events(self, seqs: Sequence[int]) -> int:
        places = ", ".join("?" * len(seqs))
        with self._file.transaction():
            return self._file.run(f"DELETE FROM events WHERE seq IN ({places})", *seqs).rowcount

    def shrink(self, pages: int) -> bool:
        (mode,) = self._file.run("PRAGMA auto_vacuum").fetchone()
        (total,) = self._file.run("PRAGMA page_count").fetchone()
        (free,) = self._file.run("PRAGMA freelist_count").fetchone()
        surplus = min(free - total // FREE_PART, pages)
        if mode != INCREMENTAL or surplus <= 0:
            return False
        with self._file.transaction():
            for _ in range(surplus):  # each run of the statement takes one step, which frees one page
                self._file.run("PRAGMA incremental_vacuum(1)")
        return bool(surplus == pages)


INCREMENTAL = 2
"""What ``PRAGMA auto_vacuum`` says of a file that can give pages back."""
