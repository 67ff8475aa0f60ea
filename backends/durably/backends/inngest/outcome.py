"""How a run stands or ended: what it tells Inngest of its failure, and how that is read back."""

from __future__ import annotations

import json
from typing import Any

import inngest

from durably.core.run_view import RunStatus, RunView

__all__ = ["RunFailed", "child_view", "error_data"]

MARK = "durably: "
"""What the last line of a stack begins with that holds an error of ours: Inngest carries no other field of it."""


class RunFailed(inngest.NonRetriableError):  # a message to Inngest, not an error of ours
    """Tells Inngest that the run has failed for good.

    Args:
        data: What the function raised, as JSON data without secrets.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(str(data.get("message") or data["type"]), quiet=True)
        self._data = data

    @property
    def name(self) -> str:
        """The class of the error, as Inngest's pages show it."""
        return str(self._data["type"])

    @property
    def stack(self) -> str:
        """The traceback, and a line with the error's fields."""
        fields = {name: value for name, value in self._data.items() if name != "traceback"}
        return f"{self._data.get('traceback', '')}\n{MARK}{json.dumps(fields)}"


def error_data(error: dict[str, Any] | None) -> dict[str, Any]:
    """The error of a run as JSON data, from what Inngest says of it."""
    error = error or {}
    stack, found, line = str(error.get("stack") or "").rpartition(MARK)
    if found:
        data: dict[str, Any] = json.loads(line)
        return {**data, "traceback": stack.strip("\n")} if stack.strip() else data
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
