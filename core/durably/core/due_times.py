"""Times as models write them: a time in ISO 8601, or a delay.

Owns: reading them, and telling a model what is wrong with one. Does not own: the clock, which the caller passes.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from durably.core.durations import LONGEST, text_seconds
from durably.core.errors import SerializationError, ToolError
from durably.core.serialization import codec_for

__all__ = ["due_time"]

_EXAMPLES = "write a time with its zone, such as '2030-01-31T09:00:00Z', or how long from now: 7200, '2h', 'PT2H'"


def due_time(when: str | float, now: float) -> float:
    """Return the time that a text or a number means, in seconds since 1970.

    Args:
        when: A time in ISO 8601 with its zone, or a delay: seconds, ``"2h"``, ``"1 day 12 hours"``, ``"PT2H"``.
        now: The time that a delay is counted from, in seconds since 1970.

    Raises:
        ToolError: If it cannot be read, has no zone, is past, or is more than ten years ahead. The sentence is for the
            model.
    """
    text = str(when).strip()
    delay = _seconds(text)
    due = _moment(text) if delay is None else now + delay
    if not now <= due <= now + LONGEST:
        problem = "is past" if due < now else "is more than ten years ahead"
        raise ToolError(f"{text!r} {problem}: it is {datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ} now")
    return round(due, 3)


def _seconds(text: str) -> float | None:
    """Return a delay in seconds, or ``None`` if the text is not a delay."""
    lower = text.lower()
    delay = text_seconds(re.sub(r"^in\s+", "", lower, flags=re.ASCII))
    if delay is not None:
        return delay
    if lower.startswith("p"):
        with suppress(SerializationError):
            duration: timedelta = _DURATION.validate(text.upper(), what="the delay")
            return duration.total_seconds()
    with suppress(ValueError):
        datetime.fromisoformat(text)
        return None  # "20300131" is a date here; as a number it would be a delay of 235 days
    with suppress(ValueError):
        number = float(text)
        return number if math.isfinite(number) else None
    return None


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ToolError(f"{text!r} is not a time: {_EXAMPLES}") from None
    if moment.tzinfo is None:
        raise ToolError(f"{text!r} has no time zone: {_EXAMPLES}")
    try:
        return moment.astimezone(UTC).timestamp()
    except OverflowError:
        raise ToolError(f"{text!r} is not a time: {_EXAMPLES}") from None


_DURATION = codec_for(timedelta)
