"""The demo's table: a row for each step, a column for each process."""

from __future__ import annotations

import re
from collections import Counter

from rich.console import Console, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from examples.audit.demo.run import Demo
from examples.audit.demo.table_cells import Cell, cells_of, duration

__all__ = ["clean", "table_of"]

CELL_WIDTH = 11
STEP_WIDTH = 28
NARROW_WIDTH = 4
RAN_WIDTH = 5

STYLES = {
    "running": "yellow",
    "executed": "green",
    "replayed": "dim",
    "retrying": "yellow",
    "given up": "red",
    "killed": "bold red",
    "cut off": "red",
}


def clean(text: str) -> str:
    """Removes from the text of others what could drive a terminal."""
    return re.sub(r"[^\S\n]|[\x00-\x08\x0b-\x1f\x7f-\x9f]", " ", text)


def table_of(
    demo: Demo, console: Console, *, rows: int | None = None, spinner: Spinner | None = None, ledger: bool = False
) -> Table:
    """What became of each step in each process.

    Args:
        demo: The demo, at work or done.
        console: Where it is to fit.
        rows: How many steps to show at most: the newest ones.
        spinner: What turns where a body is running.
        ledger: Whether to add how often the ledger saw each body start.
    """
    room = console.width - STEP_WIDTH - (RAN_WIDTH if ledger else 0)
    narrow = ledger and len(demo.workers) * CELL_WIDTH > room  # at the end every process is shown, by its marks alone
    width = NARROW_WIDTH if narrow else CELL_WIDTH
    workers = demo.workers[-max(1, room // width) :]
    table = _empty_table([f"{'' if narrow else 'process '}{worker.number}" for worker in workers], width - 1, ledger)
    cells = [cells_of(worker) for worker in workers]
    starts = Counter(start.key for start in demo.starts)
    steps = demo.steps
    hidden = len(steps) - rows if rows is not None else 0
    if hidden > 0:
        steps = steps[hidden + 1 :]
        table.add_row(Text(f" ({hidden + 1} earlier steps)", style="dim"))
    for step in steps:
        ran = [Text(f"{starts[step]}", style="bold yellow" if starts[step] > 1 else "dim")] if ledger else []
        table.add_row(_step(step), *(_cell(each.get(step), spinner, console, narrow) for each in cells), *ran)
    return table


def _empty_table(titles: list[str], width: int, ledger: bool) -> Table:
    table = Table(box=None, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(" step", width=STEP_WIDTH - 1, no_wrap=True)
    for title in titles:
        table.add_column(title, width=width, no_wrap=True, overflow="crop")
    if ledger:
        table.add_column("ran", width=RAN_WIDTH - 2, justify="right")
    return table


def _step(step: str) -> Text:
    branch, slash, name = step.rpartition("/")
    text = Text(f" {branch}{slash}", style="dim").append(name, style="not dim")
    text.truncate(STEP_WIDTH - 1)
    return text


def _cell(cell: Cell | None, spinner: Spinner | None, console: Console, narrow: bool) -> RenderableType:
    if cell is None:
        return Text()
    if cell.state == "running" and spinner is not None:
        return spinner
    yes, no, again = ("+", "x", "=") if console.options.ascii_only else ("✓", "✗", "↺")
    marks = {"executed": yes, "replayed": again, "killed": no, "cut off": no}
    if cell.state == "executed and killed":
        return Text(yes, style="green").append(no if narrow else f" {no} KILLED", style="bold red")
    mark, style = marks.get(cell.state, ""), STYLES[cell.state]
    if narrow:
        return Text(mark, style=style)
    word = {"executed": duration(cell.seconds), "killed": "KILLED"}
    return Text(f"{mark} {word.get(cell.state, cell.state)}".strip(), style=style)
