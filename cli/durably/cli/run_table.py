"""A page of runs in a terminal: a table, and a line with their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from durably.cli.fitted_table import Column, FittedTable
from durably.cli.run_counts import RunCounts
from durably.cli.run_tree import STATUS_STYLES
from durably.cli.text import clock_time, one_line, plain, seconds
from durably.cli.waits import spell_waits
from durably.core import Run
from durably.core.run_filter import RunPage
from durably.core.run_view import RunView

__all__ = ["runs_view", "spell_counts"]


def runs_view(page: RunPage[Run[Any]], counts: RunCounts, now: float) -> RenderableType:
    """A page of runs.

    Args:
        page: The runs.
        counts: How many runs fit, by where they stand.
        now: The time to which live runs are counted, in seconds since 1970.
    """
    parts: list[RenderableType] = [spell_counts(counts)]
    if page:
        parts += [Text(), _table(page, now)]
    ways = (("older", "--after", page.next), ("newer", "--before", page.previous))
    cursors = [f"{age} runs: {option} {cursor}" for age, option, cursor in ways if cursor]
    if cursors:
        parts += [Text(), *(Text(each, style="bright_black") for each in cursors)]
    return Group(*parts)


def spell_counts(counts: RunCounts) -> Text:
    """How many runs there are, and of which status: ``7 runs: 1 waiting, 6 completed``."""
    if not counts.shown:
        return Text("no runs")
    line = Text(f"{counts.total} run{'' if counts.total == '1' else 's'}: ")
    for place, status in enumerate(counts.shown):
        line.append(", " if place else "").append(f"{counts.spelled(status)} {status.value}", STATUS_STYLES[status])
    return line


def _table(found: Iterable[Run[Any]], now: float) -> FittedTable:
    table = FittedTable(
        Column("run", 12),
        Column("function", 8, leaves=1),
        Column("status", 9),
        Column("started", 19, leaves=4),
        Column("took", 8, leaves=3, right=True),
        Column("", 12, leaves=2),
    )
    for run in found:
        view = run.view
        ended = view.ended_at or (now if not view.status.final else view.created_at)
        table.add_row(
            plain(view.id),
            plain(view.function),
            Text(view.status.value, style=STATUS_STYLES[view.status]),
            clock_time(view.created_at),
            seconds(max(0.0, ended - view.created_at)),
            _about(view, now),
        )
    return table


def _about(view: RunView, now: float) -> Text:
    if view.error is not None:
        return Text(one_line(f"{view.error.get('type')}: {view.error.get('message', '')}", 60), style="red")
    return Text(one_line(spell_waits(view.waiting_for, now), 80), style="yellow")
