"""Which runs of a SQLite file fit a filter, as a condition of SQL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from durably.backends.replay.sqlite_file import RUN_SHIFT
from durably.backends.replay.sqlite_statements import LIVE
from durably.core.run_filter import RunFilter
from durably.core.run_view import RunStatus

__all__ = ["condition", "looks", "standings"]


def condition(where: RunFilter) -> tuple[str, list[Any]]:
    """What the rows of runs that fit have in common, and its values.

    Where a live run stands is in no row: the caller looks again at those.
    """
    parts: list[tuple[str, list[Any]]] = [
        ("function = ?", [where.function]),
        ("parent = ?", [where.parent]),
        ("session_key = ?", [where.session_key]),
        ("created_at >= ?", [where.created[0]]),
        ("created_at < ?", [where.created[1]]),
        ("ended_at >= ?", [where.ended[0]]),
        ("ended_at < ?", [where.ended[1]]),
        ("instr(id, ?)", [where.text or None]),
        # A range, so that the index serves; no id goes on with the highest character there is.
        ("id >= ? AND id < ?", [where.prefix, where.prefix + chr(0x10FFFF)] if where.prefix else [None]),
    ]
    chosen = [(sql, values) for sql, values in parts if values[0] is not None]
    if where.root is not None:
        # Two looks, each with an index of its own.
        sql = "n IN (SELECT n FROM runs WHERE root = ? UNION ALL SELECT n FROM runs WHERE id = ? AND root IS NULL)"
        chosen.append((sql, [where.root, where.root]))
    chosen += [("n IN (SELECT run FROM tags WHERE tag = ?)", [tag]) for tag in where.tags]
    if where.statuses:
        chosen.append(_standing(where.statuses))
    return " AND ".join(f"({sql})" for sql, _ in chosen) or "1", [value for _, values in chosen for value in values]


def looks(where: RunFilter) -> list[tuple[str, list[Any]]]:
    """The conditions of the looks that find all that fit, and their values: no row fits two of them.

    Where only live runs are asked for, each look finds those of one status in their order, by its index.
    """
    asked = where.statuses
    if not asked or any(status.final for status in asked) or asked == {RunStatus.RETRYING}:
        return [condition(where)]
    fits, values = condition(replace(where, statuses=frozenset()))
    return [(f"{fits} AND status = '{each}' AND status IN {LIVE}", values) for each in LIVE]


def standings(where: RunFilter) -> tuple[str, list[Any]]:
    """A statement that counts the runs that fit by where they stand, and its last values.

    Its first values are the workers that are alive, as JSON, and the numbers between which it counts. It says the same
    of a live run as :func:`durably.core.standing.standing`.
    """
    fits, values = condition(replace(where, statuses=frozenset()))
    if where.statuses:
        rows = {status.value if status.final else live for status in where.statuses for live in LIVE}
        fits += f" AND status IN ({', '.join(map(repr, sorted(rows)))})"
    return _STANDINGS.format(fits=fits), values


# The delay of the code's own retry, which has no key, is over with the next record.
_OPEN = f"""
EXISTS (SELECT 1 FROM open_steps WHERE run = n AND {{}} AND (
    key != '' OR id = (SELECT max(id) FROM records WHERE id < (n + 1) << {RUN_SHIFT})
))
"""

_STANDINGS = f"""
WITH alive AS (SELECT value FROM json_each(?))
SELECT CASE
    WHEN status != 'running' THEN status
    WHEN owner IS NULL OR owner NOT IN alive THEN 'waiting'
    WHEN {_OPEN.format("retrying")} THEN 'retrying'
    WHEN {_OPEN.format("NOT retrying")} THEN 'waiting'
    ELSE 'running'
END, count(*) FROM runs WHERE n > ? AND n <= ? AND {{fits}} GROUP BY 1
"""


def _standing(statuses: frozenset[RunStatus]) -> tuple[str, list[Any]]:
    ends = sorted(status.value for status in statuses if status.final)
    # Written out: the partial indexes are for these very words.
    parts = [f"status = '{end}'" for end in ends]
    live = {status for status in statuses if not status.final}
    if live == {RunStatus.RETRYING}:
        parts.append("status = 'running' AND n IN (SELECT run FROM open_steps WHERE retrying)")
    elif live:  # several looks, each with an index of its own
        looks = (f"SELECT n FROM runs WHERE status = '{each}'" for each in ("running", "waiting", "stuck"))
        parts.append(f"n IN ({' UNION ALL '.join(looks)})")
    return " OR ".join(parts), []
