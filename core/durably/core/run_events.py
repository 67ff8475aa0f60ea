"""The events that durably itself makes: what starts a run, and the ids of those that a step sends.

Each id is derived from the run and the step key alone, so that it is the same on every attempt and every engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from durably.core.cause import OWN_EVENTS
from durably.core.errors import SerializationError
from durably.core.events import Event
from durably.core.functions import FailedRun, Function
from durably.core.ids import derive_id, new_id
from durably.core.reference import FunctionRef

__all__ = [
    "CRON",
    "FAILED",
    "INPUT_STEP",
    "INVOKED",
    "STARTED",
    "child_id",
    "cron_event",
    "cron_run_id",
    "failed_event",
    "invoked_event",
    "is_judged",
    "named_events",
    "outside_events",
    "read_input",
    "started_event",
]

INPUT_STEP = "durably-input"
"""The step that judges what an event brings. It is the first of its run."""

STARTED = f"{OWN_EVENTS}started"
INVOKED = f"{OWN_EVENTS}invoked"
FAILED = f"{OWN_EVENTS}failed"
CRON = "durably/cron.fired"
_REQUESTED = f"{OWN_EVENTS}requested"
"""The name of both where the program that starts the run does not know the function's own input type."""


def is_judged(function: FunctionRef[Any, Any]) -> bool:
    """Whether the input given to this is judged by the function's own type, and not by that of a reference to it."""
    return isinstance(function, Function)


def started_event(function: FunctionRef[Any, Any], run_id: str, data: str, traceparent: str | None = None) -> str:
    """The event of a run that a program starts, as JSON text.

    Args:
        function: The function.
        run_id: The run.
        data: The input as JSON text.
        traceparent: The span that starts it, or ``None``.
    """
    name = STARTED if is_judged(function) else _REQUESTED
    return _event_text(name, data, derive_id("start", run_id, ""), traceparent)


def _event_text(name: str, data: str, event_id: str, traceparent: str | None) -> str:
    traced = f',"traceparent":"{traceparent}"' if traceparent else ""
    return f'{{"name":"{name}","data":{data},"id":"{event_id}"{traced}}}'


def child_id(run_id: str, key: str) -> str:
    """The id of the run that an ``invoke`` step starts."""
    return derive_id("child", run_id, key)


def invoked_event(function: FunctionRef[Any, Any], child: str, data: str, traceparent: str | None = None) -> str:
    """The event of a run that an ``invoke`` step starts, as JSON text.

    Args:
        function: The function.
        child: The run.
        data: The input as JSON text.
        traceparent: The span of the step, or ``None``.
    """
    name = INVOKED if is_judged(function) else _REQUESTED
    return _event_text(name, data, child, traceparent)


def read_input(function: FunctionRef[Any, Any], event: Event) -> Any:
    """The input of a run, from the event that started it.

    What ``start`` or ``invoke`` has judged is not judged again. The data of another event is judged here.

    Args:
        function: The function.
        event: What started the run.

    Raises:
        SerializationError: If the data does not fit the function's input type.
    """
    if event.name in (STARTED, INVOKED):
        try:
            return function.input.rebuild(event.data)
        except SerializationError:
            pass  # the type has changed since: what is wrong with the data is said below
    return function.input.validate(event.data, what=f"the input of {function.id!r}")


def cron_event(function: Function[Any, Any], schedule: str, at: datetime) -> Event:
    """The event of a run that a cron starts; its id is the id of that run, so that a time has one run.

    Args:
        function: The function.
        schedule: The schedule, for people to read.
        at: The time that the run stands for, with its zone.
    """
    time = at.astimezone(UTC).isoformat()
    tick = {"cron": schedule, "at": time}
    return Event(CRON, tick if function.takes_tick else None, id=cron_run_id(function.id, time))


def cron_run_id(function_id: str, at: str) -> str:
    """The id of the run that a cron starts for a time, in ISO 8601 and UTC."""
    return derive_id("cron", function_id, at)


def failed_event(
    function: Function[Any, Any], run_id: str, cause: Event, error: dict[str, Any], traceparent: str | None = None
) -> Event:
    """The event that starts a function's ``on_failure``; its id is the id of that run.

    Args:
        function: The function that failed.
        run_id: Its run.
        cause: What had started that.
        error: Its error as JSON data, without secrets.
        traceparent: The span of that run, or ``None``.
    """
    failed = FailedRun(run_id=run_id, function=function.id, event=cause, error=error)
    data, event_id = failed.model_dump(mode="json"), derive_id("failure", run_id, "")
    return Event(FAILED, data, id=event_id, traceparent=traceparent)


def named_events(run_id: str, key: str, events: Sequence[Event], traceparent: str | None = None) -> list[Event]:
    """The events of a ``send_event`` step as they are sent.

    Args:
        run_id: The run.
        key: The step key.
        events: The events. One without an id gets one derived from its place in the step.
        traceparent: The span of the step, for those that name no other, or ``None``.
    """
    return [
        _named(event, event.id or step_event_id(run_id, key, index), traceparent) for index, event in enumerate(events)
    ]


def step_event_id(run_id: str, key: str, index: int) -> str:
    """The id of an event without one of its own, by its place in a ``send_event`` step."""
    return derive_id("event", run_id, f"{key}#{index}")


def outside_events(events: Sequence[Event], traceparent: str | None = None) -> list[Event]:
    """Events as a program sends them: one without an id gets a new one. See :func:`named_events`."""
    return [_named(event, event.id or new_id(), traceparent) for event in events]


def _named(event: Event, event_id: str, traceparent: str | None) -> Event:
    if event.id and (event.traceparent or not traceparent):
        return event
    return event.model_copy(update={"id": event_id, "traceparent": event.traceparent or traceparent})
