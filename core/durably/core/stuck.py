"""Runs whose code does not fit their records, and that wait for code that does."""

from __future__ import annotations

from dataclasses import dataclass

from durably.core.errors import NonDeterminismError, error_from_json
from durably.core.history import StepRecord

__all__ = ["Stuck", "stuck_by"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """What of the code does not fit a run.

    Attributes:
        step: The key of the step where they part.
        message: What the run recorded there, and what the code asked for.
        since: Since when it is stuck, in seconds since 1970.
    """

    step: str
    message: str
    since: float


def stuck_by(record: StepRecord) -> Stuck | None:
    """What a record says of a run being stuck, or ``None`` if it says nothing of it."""
    if record.kind != "run" or record.status != "stuck" or record.error is None:
        return None
    error = error_from_json(record.error)
    step = error.step if isinstance(error, NonDeterminismError) else ""
    return Stuck(step=step, message=str(error), since=record.at)
