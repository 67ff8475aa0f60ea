"""The event: what starts functions and wakes those that wait."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["Event"]


class Event(BaseModel):
    """Something that happened, told to whoever listens.

    Args:
        name: Such as ``"order/paid"``.
        data: Any JSON value; a dict as a rule.
        id: An event with an id that was seen before is dropped. Left out, one is made.
        ts: When to deliver it, as seconds since 1970 or an aware ``datetime``; left out or past, at once.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    data: Any = None
    id: str | None = None
    ts: float | None = None

    def __init__(self, name: str, data: Any = None, **fields: Any) -> None:
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
        """The value at a dotted path in ``data`` (``"order.id"``), or ``None`` where there is none.

        A leading ``data.`` is allowed, as in Inngest's expressions.
        """
        value: Any = self.data
        for part in path.removeprefix("data.").split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        return value
