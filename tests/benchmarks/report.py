"""The table that a benchmark prints: ours beside another's, and whether the limits were kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from rich.table import Table

__all__ = ["Report", "Unit"]

Unit = Callable[[float], str]


class Report:
    """The table, and whether every limit was kept.

    Args:
        title: What stands above it.
        other: What ours is compared with.
    """

    def __init__(self, title: str, other: str) -> None:
        self.table = Table(title=title)
        self.kept = True
        for column in ("what", "turns", "result", other, "durably", "ratio", "limit"):
            self.table.add_column(column, justify="left" if column == "what" else "right")

    def add(
        self,
        what: str,
        case: tuple[str, str],
        pairs: Sequence[tuple[float, float]],
        unit: Unit,
        limit: float | None = None,
    ) -> None:
        """One row: the medians, and the median of the rounds' ratios; without a limit it is only told."""
        ratio = statistics.median(ours / other for other, ours in pairs)
        kept = limit is None or ratio <= limit
        self.kept &= kept
        medians = [unit(statistics.median(column)) for column in zip(*pairs, strict=True)]
        shown = f"{ratio:.2f}" if limit is None else f"[{'green' if kept else 'red'}]{ratio:.2f}[/]"
        self.table.add_row(what, *case, *medians, shown, "" if limit is None else f"{limit:g}")

    def note(self, what: str, case: tuple[str, str], other: str, ours: str = "", *, kept: bool = True) -> None:
        """A row that has no ratio."""
        self.kept &= kept
        self.table.add_row(what, *case, other, ours, "" if kept else "[red]failed[/]", "")
