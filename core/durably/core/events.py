"""The event, which starts functions and wakes runs that wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["Event", "matches", "same_json"]


class _Fields(TypedDict, total=False):
    id: str | None
    ts: float | datetime | None


class Event(BaseModel):
    """Something that happened. It starts the functions that have its name among their triggers.

    Args:
        name: The name, such as ``"order/paid"``.
        data: Any JSON value, usually a dict.
        id: Identifies the event. An event with an id that was seen before is dropped. Default: a new id.
        ts: When to deliver it, as seconds since 1970 or an aware ``datetime``. Default, or if past: at once.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    data: Any = None
    id: str | None = None
    ts: float | None = None

    # pydantic calls this with unknown keys too, and then refuses them. Named parameters would raise TypeError first.
    def __init__(self, name: str, data: object = None, **fields: Unpack[_Fields]) -> None:
        super().__init__(name=name, data=data, **fields)

    @field_validator("ts", mode="before")
    @classmethod
    def _to_seconds(cls, value: object) -> object:
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError("ts has no time zone: use datetime.now(timezone.utc) or seconds since 1970")
            return value.astimezone(UTC).timestamp()
        return value

    def at(self, path: str) -> Any:
        """Return the value at a dotted path in ``data``, such as ``"order.id"``, or ``None`` if there is none.

        The path may begin with ``data.``, as in Inngest's expressions.
        """
        found = self._find(path)
        return None if found is _ABSENT else found

    def _find(self, path: str) -> Any:
        value: Any = self.data
        for part in path.removeprefix("data.").split("."):
            value = value.get(part, _ABSENT) if isinstance(value, dict) else getattr(value, part, _ABSENT)
        return value


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
