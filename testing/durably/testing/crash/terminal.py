"""The report in a terminal, and a progress bar. Needs rich."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from durably.testing.crash.matrix import Progress as Told
from durably.testing.crash.report import Report

try:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Table
except ImportError as error:
    raise ImportError("the table of a crash matrix needs rich: pip install 'durably[testing]'") from error

__all__ = ["print_report", "progress_bar"]


@contextmanager
def progress_bar() -> Iterator[Told]:
    """A bar on standard error, with an estimate of the time that is left.

    ``with progress_bar() as bar: await crash_matrix(..., progress=bar)``.
    """
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("about"),
        TimeRemainingColumn(),
        TextColumn("left · {task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("without a crash", total=None)

        def told(done: int, known: int, label: str) -> None:
            shown.update(task, completed=done, total=known, description=label)

        yield told


def print_report(report: Report, console: Console | None = None) -> None:
    """A table of the steps, then what is wrong."""
    console = console or Console()
    table = Table(title=f"{report.function} on {report.backend}", title_justify="left")
    for name in ("step", "guarantee", "cells", "failed", "executions at most"):
        table.add_column(name, justify="left" if name in ("step", "guarantee") else "right", overflow="fold")
    for step in report.steps:
        cells = [cell for cell in report.cells if (cell.function, cell.step) == (step.function, step.key)]
        failed = sum(1 for cell in cells if cell.outcome in ("failed", "missed"))
        name = step.key if step.function == report.function else f"{step.function}::{step.key}"
        bad = f"[red]{failed}[/red]" if failed else "0"
        table.add_row(
            name.replace("[", r"\["), step.guarantee, str(len(cells)), bad, str(step.most) if step.most else ""
        )
    console.print(table)
    # Lines are not broken here: the last one is a command to copy.
    console.print(str(report), markup=False, highlight=False, soft_wrap=True)
