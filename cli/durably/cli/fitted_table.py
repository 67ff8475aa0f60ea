"""A table that fits the terminal: where there is no room, the columns that matter least are left out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

__all__ = ["Column", "FittedTable"]

GAP = 2
"""Spaces between two columns."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: What stands above it.
        least: Characters it needs; longer cells are cut where there is no more room.
        leaves: Which columns are left out first: those with the highest number. Those with 0 always stay.
        right: Whether it is set to the right.
    """

    name: str
    least: int
    leaves: int = 0
    right: bool = False


class FittedTable:
    """A table without lines.

    Args:
        columns: Its columns, from left to right.
    """

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row, with a cell for each column."""
        self._rows.append([Text(cell) if isinstance(cell, str) else cell for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Give the table as it fits."""
        widths = self._widths(options.max_width)
        table = Table(box=None, pad_edge=False, header_style="bright_black")
        for place, width in widths.items():
            column = self._columns[place]
            table.add_column(
                column.name,
                width=width,
                no_wrap=True,
                overflow="ellipsis",
                justify="right" if column.right else "left",
            )
        for row in self._rows:
            table.add_row(*(row[place] for place in widths))
        yield table

    def _widths(self, room: int) -> dict[int, int]:
        """The columns that stay, by their places, and how wide each is."""
        wanted = [self._wanted(place) for place in range(len(self._columns))]
        widths = {place: min(column.least, wanted[place]) for place, column in enumerate(self._columns)}
        first_to_leave = sorted(widths, key=lambda place: -self._columns[place].leaves)
        for place in first_to_leave:
            if _taken(widths.values()) <= room or not self._columns[place].leaves:
                break
            del widths[place]
        spare = room - _taken(widths.values())
        for place in sorted(widths, key=lambda place: self._columns[place].leaves):
            more = max(0, min(spare, wanted[place] - widths[place]))
            widths[place] += more
            spare -= more
        return widths

    def _wanted(self, place: int) -> int:
        return max([cell_len(self._columns[place].name), *(row[place].cell_len for row in self._rows)])


def _taken(widths: Collection[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)
