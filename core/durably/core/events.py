"""The event, which starts functions and wakes runs that wait for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import is_dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, field_validator

from durably.core.durations import moment
from durably.core.error_text import shown
from durably.core.errors import SerializationError
from durably.core.ids import check_event_id, check_event_name, check_names_no_secret, check_traceparent
from durably.core.left_out import is_none
from durably.core.serialization import codec_for

__all__ = ["Event", "check_events", "json_key", "matches", "same_json"]


class _Fields(TypedDict, total=False):
    id: str | None
    ts: float | datetime | str | None
    traceparent: str | None


class Event(BaseModel):
    """Something that happened. It starts the functions that have its name among their triggers.

    Args:
        name: The name, such as ``"order/paid"``: 1 to 200 printable characters.
        data: Any JSON value, usually a dict. It is checked when the event is sent.
        id: The id of the event. A second event with the same id is dropped. Default: a new id.
        ts: When to deliver it: seconds since 1970, an aware ``datetime``, or ISO 8601 with a zone. Default, and for a
            past time: at once.
        traceparent: The span that sends it, as W3C text. Default: from the backend's observers.

    Raises:
        TypeError: If the name, the id or ``traceparent`` is not a text, or ``ts`` not a time.
        ValueError: If one of them is out of range.
    """

    # Written as "null", NaN would be sent as another value than was given.
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str = Field(min_length=1)
    data: Any = None
    id: str | None = None
    ts: float | None = None
    traceparent: str | None = Field(default=None, exclude_if=is_none, repr=False)

    # Named parameters would raise TypeError for an unknown key before pydantic refuses it.
    def __init__(self, name: str, data: object = None, **fields: Unpack[_Fields]) -> None:
        check_event_name(name)
        id, ts, traceparent = fields.get("id"), fields.get("ts"), fields.get("traceparent")
        if id is not None:
            check_event_id(id)
        if ts is not None:
            fields["ts"] = moment(ts, f"ts of event {name!r}")
        if traceparent is not None:
            check_traceparent(traceparent)
        super().__init__(name=name, data=data, **fields)

    # Without this mark pydantic calls __init__ for what it reads too, and an event that was recorded, or that another
    # program sent to Inngest, would be refused by a rule which came after it.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @field_validator("ts", mode="before")
    @classmethod
    def _to_seconds(cls, value: object) -> object:
        return moment(value, "ts of an event") if isinstance(value, datetime) else value

    def at(self, path: str) -> Any:
        """Return the value at a dotted path in ``data``, such as ``"order.id"``, or ``None`` if there is none.

        The path may begin with ``data.``, as in Inngest's expressions.
        """
        found = self._find(path)
        return None if found is _ABSENT else found

    def _find(self, path: str) -> Any:
        value: Any = self.data
        for part in path.removeprefix("data.").split("."):
            if isinstance(value, dict):
                value = value.get(part, _ABSENT)
            elif isinstance(value, BaseModel) or is_dataclass(value):
                value = getattr(value, part, _ABSENT)
            else:  # a text and a list have attributes too, and none of them is data
                return _ABSENT
        return value


def check_events(events: Iterable[Event], redact: Callable[[str], str], *, step: str = "") -> None:
    """Refuse events that are handed over and cannot be sent, before any of them is.

    Args:
        events: The events.
        redact: Masks secrets in a text.
        step: The id of the step that hands them over, for errors; empty for a program.

    Raises:
        TypeError: If one is not an event.
        ValueError: If one has a name, an id, a ``ts`` or a ``traceparent`` out of range, or a registered secret in its
            name or id.
        SerializationError: If the data of one has no JSON form, holds NaN or an infinity, or would come back changed.
    """
    for event in events:
        if not isinstance(event, Event):
            raise TypeError(f"what is sent is an event, such as Event('order/paid', {{'id': 7}}), not {shown(event)}")
        # Once more: model_copy and model_validate make events that no __init__ has seen.
        check_event_name(event.name)
        check_names_no_secret(event.name, "the name of an event", redact)
        if event.id is not None:
            check_event_id(event.id)
            check_names_no_secret(event.id, f"the id of event {event.name!r}", redact)
        if event.ts is not None:
            moment(event.ts, f"ts of event {event.name!r}")
        if event.traceparent is not None:
            check_traceparent(event.traceparent)
        _check_data(event, step)


def _check_data(event: Event, step: str) -> None:
    try:
        # Read back as well: an engine does, and some data can be written and not read, or comes back changed.
        _EVENT.round_trip(event, step="", limit=None, redact=str)
    except SerializationError as error:
        reason = error.__cause__ if isinstance(error.__cause__, ValueError) else error.message  # pydantic's are such
        raise SerializationError(
            f"the data of event {event.name!r} cannot be sent: {reason}. Send JSON types, dataclasses or pydantic "
            "models, without NaN",
            step=step,
        ) from error


_EVENT = codec_for(Event)


_ABSENT = object()


def matches(event: Event, match: Mapping[str, Any]) -> bool:
    """Whether an event has these values at these paths, as JSON tells values apart.

    ``True`` is not ``1``, and ``None`` is there only where the data says null. ``1`` and ``1.0`` are one number.

    Args:
        event: The event.
        match: Dotted paths and the values that must be there, as for :meth:`Event.at`.
    """
    return all(same_json(event._find(path), value) for path, value in match.items())


def same_json(found: Any, wanted: Any) -> bool:
    """Whether two values are the same JSON: ``True`` is not ``1``, and ``1`` is ``1.0``."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same_json(found[key], wanted[key]) for key in found)
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same_json, found, wanted))
    return bool(found == wanted)


def json_key(value: Any) -> Hashable | None:
    """Return what all values have in common that are the same JSON as this one, for a dict; ``None`` if nothing has.

    Two values of which :func:`same_json` says that they are the same have equal keys. A value whose type compares in a
    way of its own has none.
    """
    if value is None or isinstance(value, bool):
        return "constant", str(value)
    if type(value) in (str, int, float):
        return value  # type: ignore[no-any-return]  # 1 and 1.0 have one hash
    if isinstance(value, dict):
        parts = [(name, json_key(each)) for name, each in value.items()]
        return None if any(key is None for _, key in parts) else ("dict", frozenset(parts))
    if isinstance(value, list | tuple):
        keys = tuple(map(json_key, value))
        return None if None in keys else ("list", keys)
    return None
