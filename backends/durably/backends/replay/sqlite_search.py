"""Which runs of a SQLite file fit a filter, as a condition of SQL."""

from __future__ import annotations

from typing import Any

from durably.core.run_filter import RunFilter
from durably.core.run_view import RunStatus

__all__ = ["condition"]


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
