"""The event, which starts functions and wakes runs that wait for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["Event"]


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
        value: Any = self.data
        for part in path.removeprefix("data.").split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        return value
