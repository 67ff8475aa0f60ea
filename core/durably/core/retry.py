"""The delays between attempts.

Owns: how long to wait. Does not own: whether to try again (``errors.is_retriable``), and waiting (the engine).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b

from durably.core.durations import LONGEST, Duration, duration_seconds
from durably.core.error_text import shown
from durably.core.errors import DefinitionError, ModelError, RetryAfterError

__all__ = ["RetryPolicy"]

MAX_FACTOR = 1000
"""The largest growth of delays. ``MAX_FACTOR ** 64`` is still a float, which a larger one need not be."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with jitter, in the "equal jitter" form of the AWS Architecture Blog (Brooker, 2015).

    Args:
        initial: How long to wait before the second attempt: seconds, a ``timedelta``, or a text such as ``"2s"``.
        factor: The factor by which each further delay grows, 1 to 1000.
        maximum: The longest delay, in the same forms.
        jitter: The share of a delay that is random, 0 to 1. It is drawn from the step's idempotency key, so that every
            replay computes the same delay.

    Raises:
        DefinitionError: If a duration or a number is out of range.
    """

    initial: Duration = 1.0
    factor: float = 2.0
    maximum: Duration = 300.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        try:
            duration_seconds(self.initial, "initial")
            duration_seconds(self.maximum, "maximum")
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"this is not a retry policy: {error}") from None
        _check_number("factor", self.factor, 1, MAX_FACTOR)
        _check_number("jitter", self.jitter, 0, 1)

    def delay(self, failures: int, seed: str) -> float:
        """Return the seconds to wait.

        Args:
            failures: How many attempts have failed, at least 1.
            seed: A text that the jitter is drawn from.
        """
        initial, maximum = duration_seconds(self.initial, "initial"), duration_seconds(self.maximum, "maximum")
        # Without the cap on the exponent, 2.0 ** 1100 would overflow before `min` could help.
        full = min(maximum, initial * float(self.factor) ** min(failures - 1, 64))
        draw = int.from_bytes(blake2b(f"{seed}\0{failures}".encode(), digest_size=4).digest()) / 2**32
        return full * (1 - self.jitter * draw)

    def next_delay(self, error: BaseException, failures: int, seed: str) -> float:
        """Return the delay that the error names, as ``RetryAfterError`` does, or else that of :meth:`delay`."""
        named = _named_delay(error)
        return self.delay(failures, seed) if named is None else named


def _named_delay(error: BaseException) -> float | None:
    field = "delay" if isinstance(error, RetryAfterError) else "retry_after" if isinstance(error, ModelError) else None
    if field is None:
        return None
    try:
        delay = float(getattr(error, field))
    except Exception:  # None, or a user's subclass whose constructor set no such field
        return None
    # A provider's header may say anything; no engine keeps a delay of more than ten years.
    return min(max(0.0, delay), LONGEST) if math.isfinite(delay) else None


def _check_number(name: str, value: object, least: float, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]
        raise DefinitionError(
            f"this is not a retry policy: {name} is a number from {least:g} to {most:g}, not {shown(value)}"
        )
