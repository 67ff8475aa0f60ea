"""How a run failed, as Inngest carries it: a name, a message, and our own data in the stack."""

from __future__ import annotations

import json
import traceback
from typing import Any

import inngest

from durably.core import DurablyError, InvokeError, RunCancelledError
from durably.core.errors import error_from_json

__all__ = ["RunFailed", "error_data", "how_it_failed"]

MARK = "durably: "


class RunFailed(inngest.NonRetriableError):  # a message to Inngest, not an error of ours
    """Tells Inngest that the run has failed for good.

    Args:
        error: What the function raised.
        data: The same as JSON data.
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


def text_of(error: BaseException) -> str:
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


def how_it_failed(name: str, message: str, stack: str | None, step: str, function: str, run_id: str) -> InvokeError:
    """The error for a run that waited for one which did not complete."""
    data = error_data({"name": name, "message": message, "stack": stack})
    text = str(error_from_json(data)) if data["type"] in DurablyError._classes else data["message"]
    cancelled = name == "Error" and "cancelled" in message and not (stack or "")
    cls = RunCancelledError if cancelled else InvokeError
    return cls(step=step, error_type=data["type"], message=text, function=function, run_id=run_id)
