"""The input of a run: checked, as JSON text, and compared with that of a run that has its id."""

from __future__ import annotations

import json
from typing import Any

from durably.core.errors import RunExistsError, SerializationError
from durably.core.events import same_json
from durably.core.reference import FunctionRef


def check_same_start(function: FunctionRef[Any, Any], run_id: str, known: str, recorded: Any, asked: Any) -> None:
    """Refuse to take a run for another one that was to have its id.

    Args:
        function: The function that was to be started.
        run_id: The id.
        known: The id of the function of the run that is there.
        recorded: The input of that, as JSON data.
        asked: The input that this was to have, as JSON data without secrets.

    Raises:
        RunExistsError: If the two functions or the two inputs differ.
    """
    if known != function.id or not _same_input(function, recorded, asked):
        raise RunExistsError(run_id=run_id, function=known, asked=function.id)


def _same_input(function: FunctionRef[Any, Any], recorded: Any, asked: Any) -> bool:
    if same_json(recorded, asked):
        return True
    try:  # one of the two may come from a program that does not know the function's own type, and fills in no defaults
        return same_json(*(json.loads(encode_data(function, data)) for data in (recorded, asked)))
    except SerializationError:
        return False


def encode_data(function: FunctionRef[Any, Any], data: Any) -> str:
    """The input of a run as JSON text, checked against the function's input type where it is known."""
    checked = function.input.validate(data, what=f"the input of {function.id!r}")
    text, _ = function.input.round_trip(checked, step="", limit=None, redact=str)
    return text
