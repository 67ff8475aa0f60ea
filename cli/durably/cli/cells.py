"""What became of each step in each process: the cells of the demo's table, and the words for its kills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from durably.cli.kills import words
from durably.cli.life import Life

__all__ = ["Cell", "cells_of", "duration", "epitaph"]

State = Literal["running", "executed", "replayed", "retrying", "given up", "killed", "cut off", "executed and killed"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What one process did with one step.

    Attributes:
        state: In a word.
        seconds: How long the step took, where it was executed.
    """

    state: State
    seconds: float = 0.0


def cells_of(life: Life) -> dict[str, Cell]:
    """The cells of one process, by step key."""
    cells: dict[str, Cell] = {}
    for mark in life.marks:
        if mark.what == "started":
            cells[mark.step] = Cell("running")
        elif mark.what == "executed":
            cells[mark.step] = Cell("executed", mark.seconds)
        elif mark.what == "replayed":
            cells[mark.step] = Cell("replayed")
        elif mark.what == "retrying" or mark.what == "given up":
            cells[mark.step] = Cell(mark.what)
        elif mark.what == "killed" and mark.step:
            cells[mark.step] = _killed(cells.get(mark.step))
    if life.was_killed:
        for step, cell in cells.items():
            if cell.state == "running":
                took = life.committed.get(step)
                cells[step] = Cell("cut off") if took is None else Cell("executed", took)
    return cells


def _killed(before: Cell | None) -> Cell:
    if before is not None and before.state == "executed":
        return Cell("executed and killed", before.seconds)
    return Cell("killed")


def epitaph(life: Life) -> str:
    """How a process ended."""
    if life.code is None:
        return "at work"
    if life.was_killed:
        kill = life.kill
        return "SIGKILL " + (words("", "") if kill is None else words(kill.point, kill.step))
    return "finished the run" if life.code == 0 else f"failed with code {life.code}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 0.001:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
