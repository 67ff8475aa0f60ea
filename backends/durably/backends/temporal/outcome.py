"""How a run ended, read from what Temporal says of it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from temporalio.client import WorkflowExecutionStatus
from temporalio.common import RawValue
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    FailureError,
    TerminatedError,
)
from temporalio.exceptions import (
    TimeoutError as TemporalTimeoutError,
)

from durably.backends.temporal.payloads import STATUS, note
from durably.core import NonDeterminismError
from durably.core.backend import RunStatus
from durably.core.errors import error_to_json

__all__ = ["STATUSES", "application_error", "ended_with", "how_it_failed"]

STATUSES = {
    WorkflowExecutionStatus.RUNNING: RunStatus.RUNNING,
    WorkflowExecutionStatus.CONTINUED_AS_NEW: RunStatus.RUNNING,
    WorkflowExecutionStatus.COMPLETED: RunStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED: RunStatus.FAILED,
    WorkflowExecutionStatus.TIMED_OUT: RunStatus.FAILED,
    WorkflowExecutionStatus.CANCELED: RunStatus.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: RunStatus.CANCELLED,
}


def ended_with(value: RawValue) -> RunStatus:
    """How a run ended that returned a value."""
    return RunStatus(note(value, STATUS) or RunStatus.COMPLETED)


def how_it_failed(cause: BaseException | None) -> tuple[RunStatus, dict[str, Any] | None]:
    """How a run ended that returned no value, and its error as JSON data."""
    if isinstance(cause, CancelledError | TerminatedError | asyncio.CancelledError):
        return RunStatus.CANCELLED, None
    if isinstance(cause, TemporalTimeoutError):
        return RunStatus.FAILED, {
            "type": "TimeoutError",
            "message": "Temporal's own time limit of the workflow is over",
        }
    if isinstance(cause, ApplicationError):
        return RunStatus.FAILED, application_error(cause)
    message = cause.message if isinstance(cause, FailureError) else str(cause)
    return RunStatus.FAILED, {"type": type(cause).__name__, "message": message}


def application_error(error: ApplicationError) -> dict[str, Any]:
    """The error that :func:`~durably.backends.temporal.payloads.failure` wrote, or the nearest to a foreign one."""
    if error.details and isinstance(error.details[0], dict) and "type" in error.details[0]:
        found: dict[str, Any] = error.details[0]
        return found
    if "TMPRL1100" in error.message:  # the number Temporal gives to a history that does not fit the code
        recorded, asked = _mismatch(error.message)
        return error_to_json(NonDeterminismError(step=recorded, recorded=repr(recorded), asked=asked))
    return {"type": error.type or "ApplicationError", "message": error.message}


def _mismatch(message: str) -> tuple[str, str]:
    """What Temporal's own check found in the history, and what the code asked for."""
    named = re.findall(r"'([^']+)'", message)
    return (named[0], repr(named[1])) if len(named) > 1 else ("", message)
