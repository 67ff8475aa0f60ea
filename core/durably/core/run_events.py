"""The events that durably itself makes: what starts a run, and the ids of those that a step sends.

Each id is derived from the run and the step key alone, so that it is the same on every attempt and every engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durably.core.events import Event
from durably.core.functions import FailedRun, Function
from durably.core.ids import derive_id

__all__ = ["child_id", "failed_event", "invoked_event", "named_events", "started_event"]


def started_event(run_id: str, data: str) -> str:
    """The event of a run that a program starts, as JSON text; ``data`` is the input as JSON text."""
    return f'{{"name":"durably/function.started","data":{data},"id":"{derive_id("start", run_id, "")}"}}'


def child_id(run_id: str, key: str) -> str:
    """The id of the run that an ``invoke`` step starts."""
    return derive_id("child", run_id, key)


def invoked_event(child: str, data: str) -> str:
    """The event of a run that an ``invoke`` step starts, as JSON text; ``data`` is the input as JSON text."""
    return f'{{"name":"durably/function.invoked","data":{data},"id":"{child}"}}'


def failed_event(function: Function[Any, Any], run_id: str, cause: Event, error: dict[str, Any]) -> Event:
    """The event that starts a function's ``on_failure``; its id is the id of that run.

    Args:
        function: The function that failed.
        run_id: Its run.
        cause: What had started that.
        error: Its error as JSON data, without secrets.
    """
    failed = FailedRun(run_id=run_id, function=function.id, event=cause, error=error)
    return Event("durably/function.failed", failed.model_dump(mode="json"), id=derive_id("failure", run_id, ""))


def named_events(run_id: str, key: str, events: Sequence[Event]) -> list[Event]:
    """The events of a ``send_event`` step, each with an id: its own, or one derived from its place in the step."""
    return [
        event if event.id else event.model_copy(update={"id": derive_id("event", run_id, f"{key}#{index}")})
        for index, event in enumerate(events)
    ]
