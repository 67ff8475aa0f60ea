"""The cells of the demo's table: what became of each step in each process, and how each process ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from examples.audit.demo.kill_plan import describe_kill
from examples.audit.demo.worker_log import WorkerLog

__all__ = ["Cell", "cells_of", "describe_end", "duration"]

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


def cells_of(worker: WorkerLog) -> dict[str, Cell]:
    """The cells of one process, by step key."""
    cells: dict[str, Cell] = {}
    for event in worker.events:
        if event.what == "started":
            cells[event.step] = Cell("running")
        elif event.what == "executed":
            cells[event.step] = Cell("executed", event.seconds)
        elif event.what == "replayed" or event.what == "retrying" or event.what == "given up":
            cells[event.step] = Cell(event.what)
        elif event.what == "killed" and event.step:
            cells[event.step] = _killed(cells.get(event.step))
    if worker.process.was_killed:
        for step, cell in cells.items():
            if cell.state == "running":
                took = worker.committed.get(step)
                cells[step] = Cell("cut off") if took is None else Cell("executed", took)
    return cells


def _killed(before: Cell | None) -> Cell:
    if before is not None and before.state == "executed":
        return Cell("executed and killed", before.seconds)
    return Cell("killed")


def describe_end(worker: WorkerLog) -> str:
    """Says how a process ended."""
    process = worker.process
    if process.returncode is None:
        return "at work"
    if process.was_killed:
        crash = process.crash
        return "SIGKILL " + (describe_kill("", "") if crash is None else describe_kill(crash.name, crash.key))
    return "finished the run" if process.returncode == 0 else f"failed with code {process.returncode}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 0.001:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
