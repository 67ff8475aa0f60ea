"""Durations and moments: what is taken for one, and what is refused with a sentence that says what to write.

Owns: the rule. It holds wherever a time comes in, so that no engine is asked for one that another would refuse. Does
not own: the clock, and the times that models write (``due_times.py``).
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta

from durably.core.error_text import shown

__all__ = ["LATEST", "LONGEST", "Duration", "duration_seconds", "moment", "text_seconds", "timeout_seconds"]

Duration = float | timedelta | str
"""How long: seconds, a ``timedelta``, or a text of numbers with units, such as ``"1h30m"``."""

LONGEST = timedelta(days=3660).total_seconds()
"""The longest duration, in seconds: ten years. A longer one is a mistake, as a rule milliseconds."""

LATEST = 253_402_300_799
"""The latest moment, in seconds since 1970: the end of the year 9999, and with it of ``datetime``."""

TEXT_LIMIT = 100
"""The most characters that a text may have to be read as a duration."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = r"(\d+(?:\.\d+)?)\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)"
_TEXT = re.compile(rf"{_PART}(?:(?:\s*,)?(?:\s+and)?\s*{_PART})*", re.ASCII)

_DURATIONS = "write seconds, a timedelta, or a text with units such as '1h30m'"
_MOMENTS = "write datetime.now(timezone.utc) + timedelta(hours=1), seconds since 1970, or '2030-01-31T09:00:00Z'"


def duration_seconds(value: Duration, what: str) -> float:
    """Return a duration in seconds, from 0 to ten years.

    Args:
        value: Seconds, a ``timedelta``, or a text of numbers with units, such as ``"90s"`` or ``"1 day 12 hours"``.
        what: What it is for. An error begins with it: ``"step 'nap': the duration"``.

    Raises:
        TypeError: If it is something else, such as a bool.
        ValueError: If it is negative, not finite, longer than ten years, or a text that cannot be read.
    """
    seconds = _number_of_seconds(value, what)
    if not seconds >= 0:  # NaN too
        raise ValueError(f"{what} must be 0 seconds or more, not {shown(value)}")
    if seconds > LONGEST:
        raise ValueError(
            f"{what} must be at most ten years ({LONGEST:.0f} seconds), not {shown(value)}: a number is in seconds, "
            "not milliseconds; to wait for ever, leave a timeout out"
        )
    return float(seconds)


def timeout_seconds(value: Duration | None, what: str) -> float | None:
    """Return a timeout in seconds, or ``None`` where there is none. Raises what `duration_seconds` raises."""
    return None if value is None else duration_seconds(value, what)


def moment(value: datetime | float | str, what: str) -> float:
    """Return a moment in seconds since 1970, at most the end of the year 9999.

    Args:
        value: An aware ``datetime``, seconds since 1970, or a time in ISO 8601 with its zone.
        what: What it is for. An error begins with it.

    Raises:
        TypeError: If it is something else, such as a bool.
        ValueError: If it has no time zone, is not finite, before 1970, after the year 9999, or cannot be read.
    """
    time = _read_time(value, what) if isinstance(value, str) else value
    if isinstance(time, datetime):
        if time.utcoffset() is None:
            raise ValueError(f"{what} has no time zone: {shown(value)}; {_MOMENTS}")
        time = time.timestamp()
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise TypeError(f"{what} is not a time: {shown(value)}; {_MOMENTS}")
    if not time >= 0:  # NaN too
        raise ValueError(f"{what} must be a time after 1970, not {shown(value)}; {_MOMENTS}")
    if time > LATEST:
        raise ValueError(f"{what} is after the year 9999: {shown(value)}; a number is in seconds, not milliseconds")
    return time  # an int stays one: runs that began on an earlier version have recorded it so


def text_seconds(text: str) -> float | None:
    """Return the seconds that a text of numbers with units means, such as ``"1h30m"``, or ``None`` if it is none."""
    lower = text.strip().lower()
    if len(lower) > TEXT_LIMIT or not _TEXT.fullmatch(lower):
        return None
    return math.fsum(float(number) * _UNITS[unit[0]] for number, unit in re.findall(_PART, lower))


def _number_of_seconds(value: object, what: str) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        seconds = text_seconds(value)
        if seconds is None:
            raise ValueError(f"{what} cannot be read: {shown(value)}; {_DURATIONS}")
        return seconds
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is not a duration: {shown(value)}; {_DURATIONS}")
    return value


def _read_time(text: str, what: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{what} cannot be read: {shown(text)}; {_MOMENTS}") from None
