"""How a run stands or ended: what it tells Inngest of its failure, and how that is read back."""

from __future__ import annotations

import json
import traceback
from typing import Any

import inngest

from durably.core.backend import RunStatus, RunView

__all__ = ["RunFailed", "child_view", "error_data", "traceback_text"]

MARK = "durably: "
"""What the last line of a stack begins with that holds an error of ours: Inngest carries no other field of it."""


class RunFailed(inngest.NonRetriableError):  # a message to Inngest, not an error of ours
    """Tells Inngest that the run has failed for good.

    Args:
        data: What the function raised, as JSON data without secrets.
        text: Its traceback, without secrets.
    """

    def __init__(self, data: dict[str, Any], text: str) -> None:
        super().__init__(str(data.get("message") or data["type"]), quiet=True)
        self._data = data
        self._text = text

    @property
    def name(self) -> str:
        """The class of the error, as Inngest's pages show it."""
        return str(self._data["type"])

    @property
    def stack(self) -> str:
        """The traceback, and a line with the error's fields."""
        return f"{self._text}\n{MARK}{json.dumps(self._data)}"


def traceback_text(error: BaseException) -> str:
    """The traceback of an error."""
    return "".join(traceback.format_exception(error)).rstrip()


def error_data(error: dict[str, Any] | None) -> dict[str, Any]:
    """The error of a run as JSON data, from what Inngest says of it."""
    error = error or {}
    _, found, line = str(error.get("stack") or "").rpartition(MARK)
    if found:
        data: dict[str, Any] = json.loads(line)
        return data
    return {"type": error.get("name") or "Error", "message": error.get("message") or error.get("error") or ""}


def child_view(failure: inngest.StepError, function: str, run_id: str) -> RunView:
    """How a run stands that was invoked and did not complete, from the error its parent gets.

    Args:
        failure: What the SDK raised for the invoke.
        function: The id of the child's function.
        run_id: The child.
    """
    # Inngest has no word for it: a cancelled child is an error without a stack that says so.
    cancelled = failure.name == "Error" and "cancelled" in failure.message and not failure.stack
    data = error_data({"name": failure.name, "message": failure.message, "stack": failure.stack})
    return RunView(
        id=run_id,
        function=function,
        status=RunStatus.CANCELLED if cancelled else RunStatus.FAILED,
        error=None if cancelled else data,
    )
