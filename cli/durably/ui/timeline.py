"""The waterfall of a run: its steps as rows, and in each row the attempts and the waits as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from durably.cli.text import money, seconds, spell_tokens
from durably.core import Trace
from durably.core.trace_parts import TraceStep
from durably.ui.time_scale import TimeScale

__all__ = ["Bar", "Row", "Timeline", "timeline"]

THINNEST = 3.0
"""The least width of a bar, so that a step of a millisecond is seen."""


@dataclass(frozen=True)
class Bar:
    """One bar: where, how wide, what it is (a role, ``failed``, ``lost``, ``backoff``, ``idle``), and in words."""

    x: float
    width: float
    look: str
    title: str


@dataclass(frozen=True)
class Row:
    """A step as a row.

    Attributes:
        key: The step key.
        name: The part of the key that is shown.
        depth: How deep it is nested.
        role: See :data:`~durably.core.trace_parts.StepRole`.
        status: See :data:`~durably.core.trace_parts.StepStatus`.
        about: The model, the function or the event.
        attempts: How many there were.
        lost: How many of these a crash cut off.
        took: How long it took, in words.
        tokens: Tokens, in words.
        cost: US dollars, in words.
        bars: Its bars.
        branch: The number of the branch, if it is the first step of one.
    """

    key: str
    name: str
    depth: int
    role: str
    status: str
    about: str
    attempts: int
    lost: int
    took: str
    tokens: str
    cost: str
    bars: list[Bar]
    branch: str = ""


@dataclass(frozen=True)
class Timeline:
    """A run's rows and the time line that they stand on."""

    rows: list[Row]
    scale: TimeScale


def timeline(trace: Trace, now: float, *, squeeze: bool = True) -> Timeline:
    """Draw a trace.

    Args:
        trace: The run.
        now: Up to when a live run is drawn, in seconds since 1970.
        squeeze: Whether long waits are squeezed.
    """
    steps = list(trace.walk())
    end = trace.ended_at or max([now, trace.started_at, *(step.ended_at or 0.0 for step in steps)])
    work = [
        (attempt.started_at, attempt.ended_at or end)
        for step in steps
        for attempt in step.attempts
        if attempt.started_at is not None
    ]
    work += [(step.started_at, step.ended_at) for step in steps if step.child and step.started_at and step.ended_at]
    scale = TimeScale(trace.started_at, end, work, squeeze=squeeze)
    return Timeline(list(_rows(trace.steps, 0, trace.started_at, _Drawing(scale, end))), scale)


def _rows(steps: Sequence[TraceStep], depth: int, since: float, drawing: _Drawing, branch: str = "") -> Iterator[Row]:
    """The rows of steps that follow one another from a moment on."""
    for step in steps:
        if step.kind == "branch":
            number = step.key[step.key.rindex("[") + 1 : -1]
            yield from _rows(step.steps, depth, since, drawing, branch=number)
            continue
        yield _row(step, depth, since, drawing, branch)
        branch = ""
        yield from _rows(step.steps, depth + 1, since, drawing)
        since = step.ended_at or since


def _row(step: TraceStep, depth: int, since: float, drawing: _Drawing, branch: str) -> Row:
    span = (step.ended_at or drawing.end) - step.started_at if step.started_at is not None else None
    return Row(
        key=step.key,
        name=step.key.rpartition("/")[2],
        depth=depth,
        role=step.role,
        status=step.status,
        about=step.model or (step.name if step.role in ("child", "wait") else ""),
        attempts=len(step.attempts),
        lost=sum(attempt.outcome == "lost" for attempt in step.attempts),
        took=seconds(span),
        tokens=spell_tokens(step.usage),
        cost=money(step.cost),
        bars=drawing.bars(step, since),
        branch=branch,
    )


@dataclass(frozen=True)
class _Drawing:
    """Draws bars on a scale.

    Attributes:
        scale: The scale.
        end: Until when a step that is not over is drawn.
    """

    scale: TimeScale
    end: float

    def bars(self, step: TraceStep, since: float) -> list[Bar]:
        """The bars of a step that could begin at ``since``."""
        if step.role == "group":
            return [] if step.started_at is None else [self._bar(step.started_at, step.ended_at, "group", step.status)]
        if not step.attempts:
            if step.started_at is None:
                return []
            look = step.role if step.ended_at is not None else f"{step.role} live"
            return [self._bar(step.started_at, step.ended_at, look, step.status)]
        return list(self._attempts(step, since))

    def _attempts(self, step: TraceStep, since: float) -> Iterator[Bar]:
        until = since
        for attempt in step.attempts:
            if attempt.started_at is None:
                # No record says when it began and ended: it lies between what is known before and after it.
                later = [each.started_at for each in step.attempts if each.number > attempt.number and each.started_at]
                later_start = later[0] if later else None
                yield self._bar(until, later_start, "lost", f"attempt {attempt.number}: cut off")
                until = later_start or self.end
                continue
            if (
                attempt.number > 1
                and attempt.started_at > until
                and step.attempts[attempt.number - 2].outcome != "lost"
            ):
                yield self._bar(until, attempt.started_at, "backoff", "waiting for the next attempt")
            look = {"failed": "failed", "running": f"{step.role} live"}.get(attempt.outcome, step.role)
            said = attempt.error.get("message", "") if attempt.error else attempt.outcome
            yield self._bar(attempt.started_at, attempt.ended_at, look, f"attempt {attempt.number}: {said}")
            until = attempt.ended_at or self.end
        if step.status == "retrying":
            yield self._bar(until, None, "backoff", "waiting for the next attempt")

    def _bar(self, since: float, until: float | None, look: str, said: str) -> Bar:
        left, right = self.scale.at(since), self.scale.at(self.end if until is None else until)
        width = max(THINNEST, right - left)
        took = seconds((self.end if until is None else until) - since)
        return Bar(round(min(left, 1000 - THINNEST), 1), round(width, 1), look, f"{said} · {took}")
