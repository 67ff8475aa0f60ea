"""How a run stands or ended, read from what Temporal says of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowExecution, WorkflowExecutionStatus
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

from durably.backends.temporal.payloads import GIVEN_BACK, STATUS, metadata_of
from durably.backends.temporal.run_info import run_info
from durably.core import NonDeterminismError
from durably.core.errors import error_to_json
from durably.core.run_view import RunStatus, RunView, WaitingFor
from durably.core.standing import waits_for_turn

__all__ = ["application_error", "completed_status", "failed_status", "tries_again", "view_of"]

STATUSES = {
    WorkflowExecutionStatus.RUNNING: RunStatus.RUNNING,
    WorkflowExecutionStatus.CONTINUED_AS_NEW: RunStatus.RUNNING,
    WorkflowExecutionStatus.COMPLETED: RunStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED: RunStatus.FAILED,
    WorkflowExecutionStatus.TIMED_OUT: RunStatus.FAILED,
    WorkflowExecutionStatus.CANCELED: RunStatus.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: RunStatus.CANCELLED,
}


def view_of(found: WorkflowExecution, memo: Mapping[str, Any]) -> RunView:
    """A run as Temporal describes it; its output and its error stand elsewhere.

    Args:
        found: The workflow execution.
        memo: Its memo, which knows of a run that was skipped, and of one that waits for its turn: to Temporal the first
            has completed, and the second runs.
    """
    status = STATUSES[found.status or WorkflowExecutionStatus.RUNNING]
    said = memo.get(STATUS)
    if (status, said) in ((RunStatus.COMPLETED, RunStatus.SKIPPED), (RunStatus.RUNNING, RunStatus.WAITING)):
        status = RunStatus(str(said))
    parent = found.parent_id
    return RunView(
        id=found.id,
        function=found.workflow_type,
        status=status,
        created_at=found.start_time.timestamp(),
        ended_at=found.close_time.timestamp() if found.close_time else 0.0,
        # A run that an event started is to Temporal the child of the event's hub.
        parent=None if parent is None or parent.startswith("durably.") else parent,
        waiting_for=_turn(found) if status is RunStatus.WAITING else (),
        **run_info(memo),
    )


def _turn(found: WorkflowExecution) -> tuple[WaitingFor, ...]:
    return waits_for_turn("singleton", found.start_time.timestamp()).waiting_for


def tries_again(activity: PendingActivityInfo) -> bool:
    """Whether an attempt of an activity failed and Temporal makes another one. Its history says nothing meanwhile."""
    failure = activity.last_failure
    # Cut off by a crash, or given back by a worker that stopped: no attempt of the body has failed.
    return failure.HasField("application_failure_info") and failure.application_failure_info.type != GIVEN_BACK


def completed_status(value: RawValue) -> RunStatus:
    """How a run ended that returned a value."""
    return RunStatus(metadata_of(value, STATUS) or RunStatus.COMPLETED)


def failed_status(cause: BaseException | None) -> tuple[RunStatus, dict[str, Any] | None]:
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
