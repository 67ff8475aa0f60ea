"""What happened in an experiment, in order: the journal on one side, the effects on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from durably.testing.crash.experiment import Experiment
from durably.testing.ledger import Entry

__all__ = ["TimelineEntry", "timeline"]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line.

    Attributes:
        life: How many crashes came before it.
        side: ``journal``, ``effect`` or ``crash``.
        text: What happened.
        step: The step it is about.
    """

    life: int
    side: Literal["journal", "effect", "crash"]
    text: str
    step: str = ""

    def __str__(self) -> str:
        if self.side == "crash":
            return f"---- {self.text} " + "-" * max(4, 60 - len(self.text))
        return f"{self.text:<44} |" if self.side == "journal" else f"{'':<44} | {self.text}"


def timeline(experiment: Experiment) -> tuple[TimelineEntry, ...]:
    """The lines of an experiment."""
    lines = [
        _line(entry, experiment.committed, not experiment.history or entry.function == experiment.history.function)
        for entry in experiment.ledger
    ]
    last = experiment.history.records[-1] if len(experiment.history) else None
    if last is not None and last.final:
        lines.append(TimelineEntry(experiment.ledger.life, "journal", f"run {last.status}"))
    return tuple(lines)


def _line(entry: Entry, committed: str, own: bool) -> TimelineEntry:
    name = entry.key if own else f"{entry.function}::{entry.key}"
    if entry.kind == "crash":
        return TimelineEntry(entry.life, "crash", f"crash {entry.life + 1} at {name or 'run'}/{entry.point}", entry.key)
    if entry.kind == "committed":
        return TimelineEntry(entry.life, "journal", f"{name} {committed}", entry.key)
    verb = "begins" if entry.kind == "started" else "done"
    key = f", key {entry.idempotency_key[:6]}…" if entry.kind == "ended" and entry.used_key else ""
    attempt = f" (attempt {entry.attempt})" if entry.attempt > 1 else ""
    return TimelineEntry(entry.life, "effect", f"{name} {verb}{attempt}{key}", entry.key)
