"""What one worker keeps in mind of live runs: what their spans need and the last event of a step does not say.

Another worker that goes on with a run lacks it. Its spans are the same in number, place and tokens, with fewer details.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field

from durably.core.messages import ToolCall
from durably.core.observer import AttemptFailed

__all__ = ["MAX_RUNS", "Notes", "RunNotes", "StepNotes"]

MAX_RUNS = 10_000
"""Of how many live runs notes are kept. Runs that other workers took over would stay for ever."""

BRANCH = re.compile(r"(?:(?P<above>.*)/)?[^/]*\[(?P<index>\d+)\]")


@dataclass(slots=True)
class StepNotes:
    """Of a step, or of the code of a run.

    Attributes:
        started: When its first attempt began, in seconds since 1970, or ``None``.
        failed: Its failed attempts by number.
    """

    started: float | None = None
    failed: dict[int, AttemptFailed] = field(default_factory=dict)


@dataclass(slots=True)
class RunNotes:
    """Of a run.

    Attributes:
        event: The event that started it, as JSON text, or ``None``.
        steps: Of its open steps by key; of its own code by an empty one.
        calls: The tool calls of the last answer, by the branch that the model was asked in.
    """

    event: str | None = None
    steps: dict[str, StepNotes] = field(default_factory=dict)
    calls: dict[str, list[ToolCall]] = field(default_factory=dict)

    def step(self, key: str) -> StepNotes:
        """The notes of an open step."""
        return self.steps.setdefault(key, StepNotes())

    def call_of(self, key: str, tool: str) -> ToolCall | None:
        """The call that the step of a tool answers, or ``None`` if this worker did not see the answer it stands in."""
        scope = key.rpartition("/")[0]
        calls, index = self.calls.get(scope, []), 0
        branch = BRANCH.fullmatch(scope)
        if not calls and branch is not None:
            calls, index = self.calls.get(branch["above"] or "", []), int(branch["index"])
        return calls[index] if index < len(calls) and calls[index].name == tool else None


class Notes:
    """Of the runs that were heard of last."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, RunNotes] = OrderedDict()

    def run(self, run_id: str) -> RunNotes:
        """The notes of a live run."""
        if run_id not in self._runs and len(self._runs) >= MAX_RUNS:
            self._runs.popitem(last=False)
        notes = self._runs.setdefault(run_id, RunNotes())
        self._runs.move_to_end(run_id)
        return notes

    def close(self, run_id: str) -> RunNotes:
        """The notes of a run that has ended, for the last time."""
        return self._runs.pop(run_id, None) or RunNotes()
