"""A run as the picture of a crash matrix shows it: a row for each step of its trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from durably.core import Trace
from durably.core.trace_parts import TraceStep

__all__ = ["run_rows"]

LONGEST = 90
"""How many characters of a value or an error are shown."""


def run_rows(trace: Trace | None) -> list[dict[str, Any]]:
    """The steps of a run in order, each as JSON data: its key, depth and role, how its attempts ended, what it gave."""
    return [] if trace is None else list(_rows(trace.steps, 0))


def _rows(steps: Sequence[TraceStep], depth: int) -> Iterator[dict[str, Any]]:
    for step in steps:
        if step.kind != "branch":
            ends: list[str] = [attempt.outcome for attempt in step.attempts]
            about = {"key": step.key, "depth": depth, "role": step.role}
            yield {**about, "attempts": ends or [step.status], "said": _said(step)}
        yield from _rows(step.steps, depth + (step.kind != "branch"))


def _said(step: TraceStep) -> str:
    if step.error is not None:
        text = f"{step.error.get('type')}: {step.error.get('message', '')}"
    else:
        text = "" if step.output is None else step.output.text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
