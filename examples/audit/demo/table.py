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
    width, title = (NARROW_WIDTH, "") if narrow else (CELL_WIDTH, "process ")
    workers = demo.workers[-max(1, room // width) :]
    table = Table(box=None, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(" step", width=STEP_WIDTH - 1, no_wrap=True)
    for worker in workers:
        table.add_column(f"{title}{worker.number}", width=width - 1, no_wrap=True, overflow="crop")
    starts = Counter(start.key for start in demo.starts)
    if ledger:
        table.add_column("ran", width=RAN_WIDTH - 2, justify="right")
    cells = [cells_of(worker) for worker in workers]
    steps = demo.steps
    hidden = len(steps) - rows if rows is not None else 0
    if hidden > 0:
        steps = steps[hidden + 1 :]
        table.add_row(Text(f" ({hidden + 1} earlier steps)", style="dim"))
    for step in steps:
        line = [_cell(each.get(step), spinner, console, narrow) for each in cells]
        if ledger:
            line.append(Text(f"{starts[step]}", style="bold yellow" if starts[step] > 1 else "dim"))
        table.add_row(_step(step), *line)
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
