"""What one worker process did, step by step, from the points that it reported to its parent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from durably.core.history import StepRecord
from durably.testing import PointReport, WorkerProcess

__all__ = ["StepEvent", "WorkerLog"]

What = Literal["started", "executed", "replayed", "retrying", "given up", "killed", "failed"]

SHOWN: dict[str, What] = {
    "before_body": "started",
    "after_commit": "executed",
    "replay": "replayed",
    "backing_off": "retrying",
}


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One thing that happened to a step.

    Attributes:
        what: What happened.
        step: The step key; empty for the run.
        seconds: How long the step took, its commit included.
        text: Why the run failed.
    """

    what: What
    step: str = ""
    seconds: float = 0.0
    text: str = ""


class WorkerLog:
    """The log of one worker process.

    Args:
        process: The process.

    Attributes:
        events: What it did so far.
        first_work: After how many seconds it ran its first body.
        committed: The steps the journal held when it was gone, those it had no time to report included, and how many
            seconds each took.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.events: list[StepEvent] = []
        self.first_work: float | None = None
        self.committed: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._returned: set[str] = set()

    @property
    def number(self) -> int:
        """Which process of the run it is, from 1."""
        return self.process.number

    def follow(self) -> Iterator[StepEvent]:
        """What it does, while it lives."""
        for event in self._read_all():
            self.events.append(event)
            yield event

    def _read_all(self) -> Iterator[StepEvent]:
        for report in self.process.follow():
            event = self._read(report)
            if event is not None:
                yield event
        if self.process.error:
            yield StepEvent("failed", text=self.process.error)

    def _read(self, report: PointReport) -> StepEvent | None:
        name, step = report.point.name, report.point.key
        if report.killed:
            return StepEvent("killed", step)
        if name == "before_body":
            self._began[step] = report.seconds
            self.first_work = self.first_work or self.process.seconds
        elif name == "after_effect":
            self._returned.add(step)
        if name not in SHOWN:
            return None
        what = SHOWN[name]
        if what == "executed" and step not in self._returned:
            what = "given up"
        return StepEvent(what, step, report.seconds - self._began.get(step, report.seconds))

    def note_committed(self, records: Iterable[StepRecord]) -> None:
        """Take what the journal holds into account, once the process is gone."""
        self.committed = {record.key: record.took for record in records if record.final}
