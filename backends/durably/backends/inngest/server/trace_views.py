"""Runs and their steps as Inngest shows them, whichever of its APIs was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from durably.core.run_view import RunStatus

__all__ = ["RunApi", "RunInfo", "Span", "SpanOutput", "is_complete", "seconds", "status_of", "with_output"]

_STATUSES = {
    "COMPLETED": RunStatus.COMPLETED,
    "FAILED": RunStatus.FAILED,
    "CANCELLED": RunStatus.CANCELLED,
    "SKIPPED": RunStatus.SKIPPED,
}
_ENDED = frozenset(["COMPLETED", "FAILED", "CANCELLED"])


@dataclass(frozen=True)
class RunInfo:
    """A run.

    Attributes:
        id: Inngest's id.
        function: The full id of its function.
        status: Where it stands. A run that has ended is shown as running until what it came to is shown as well.
        output: Its result as JSON text.
        error: What Inngest says of its failure.
        queued_at: Seconds since 1970.
        ended_at: Seconds since 1970; 0 while it is live.
    """

    id: str
    function: str
    status: RunStatus
    output: str | None
    error: dict[str, Any] | None
    queued_at: float
    ended_at: float


@dataclass(frozen=True)
class Span:
    """A piece of a run's trace.

    Attributes:
        step: The hash of the step, or ``None`` for a call that ended the run or tried to.
        op: What kind of step.
        status: In Inngest's words.
        started: Seconds since 1970, by the server's clock; 0 if that is not shown.
        ended: The same.
        output: What leads to the step's output, or ``None`` if there is none yet.
    """

    step: str | None
    op: str
    status: str
    started: float
    ended: float
    output: Any


@dataclass(frozen=True)
class SpanOutput:
    """What a step gave.

    Attributes:
        data: The JSON data.
        started: Seconds since 1970, by the server's clock.
        ended: The same.
    """

    data: Any
    started: float
    ended: float


class RunApi(Protocol):
    """What can be asked of a server about runs; ids are Inngest's."""

    async def runs_of_event(self, event_id: str) -> list[RunInfo]:
        """The runs that an event started. May raise LookupError for an event that is not known yet."""
        ...

    async def name_of_event(self, event_id: str) -> str:
        """The name of an event. Raises LookupError for one that is not known."""
        ...

    async def run(self, run_id: str) -> RunInfo:
        """One run. Raises LookupError if there is none."""
        ...

    def runs(self, query: str = "") -> AsyncIterator[RunInfo]:
        """All runs, newest first, or those for which an expression about their event holds; without outputs."""
        ...

    async def event(self, run_id: str) -> dict[str, Any]:
        """The event that started a run."""
        ...

    async def cancel(self, run_id: str) -> None:
        """End a run."""
        ...

    async def outputs(self, run_id: str, expected: Collection[str]) -> tuple[bool, list[SpanOutput]]:
        """Whether the trace is complete, and what the steps of a run gave, in the order of their ends.

        Args:
            run_id: The run.
            expected: The hashes of steps that must be there.
        """
        ...


def status_of(word: str, *, has_output: bool) -> RunStatus:
    """The status of a run.

    Args:
        word: Inngest's.
        has_output: Whether the run's output is shown too. It follows the status by a tenth of a second or so.
    """
    status = _STATUSES.get(word, RunStatus.RUNNING)
    # Not ended before its output is there: whoever waits for the run would read a result that is not its own.
    return status if has_output or status not in (RunStatus.COMPLETED, RunStatus.FAILED) else RunStatus.RUNNING


def with_output(spans: Iterable[Span]) -> list[Span]:
    """The steps that have an output, each once, in the order of their ends."""
    found: dict[str, Span] = {}
    for span in spans:
        # A step is listed twice, with one output; it may be shown as ended in only one of them.
        if span.step and span.output is not None and not (span.step in found and found[span.step].ended):
            found[span.step] = span
    return sorted(found.values(), key=lambda span: span.ended or span.started)


def is_complete(status: str, spans: Collection[Span], expected: Collection[str]) -> bool:
    """Whether a trace shows all of a run that has ended.

    Args:
        status: The trace's.
        spans: Its pieces.
        expected: The hashes of steps that must be there.
    """
    # The whole trace may be shown as waiting for a minute; the call that ended the run is shown sooner.
    ended = status in _ENDED or any(span.status in _ENDED for span in spans if not span.step)
    shown = {span.step for span in spans if span.output is not None or span.op not in ("RUN", "")}
    return ended and shown.issuperset(expected)


def seconds(text: str | None) -> float:
    """A moment as seconds since 1970; 0 for none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
