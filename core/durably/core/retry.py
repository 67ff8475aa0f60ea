"""The delays between attempts.

Owns: how long to wait. Does not own: whether to try again (``errors.is_retriable``), and waiting (the engine).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b

from durably.core.errors import DefinitionError, ModelError, RetryAfterError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with jitter, in the "equal jitter" form of the AWS Architecture Blog (Brooker, 2015).

    Args:
        initial: Seconds before the second attempt.
        factor: The factor by which each further delay grows.
        maximum: The longest delay, in seconds.
        jitter: The share of a delay that is random, 0 to 1. It is drawn from the step's idempotency key, so that every
            replay computes the same delay.

    Raises:
        DefinitionError: If a number is out of range.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.initial < 0 or self.factor < 1 or self.maximum < 0 or not 0 <= self.jitter <= 1:
            raise DefinitionError(f"{self} is not a retry policy: delays >= 0, factor >= 1, jitter from 0 to 1")

    def delay(self, failures: int, seed: str) -> float:
        """Return the seconds to wait.

        Args:
            failures: How many attempts have failed, at least 1.
            seed: A text that the jitter is drawn from.
        """
        # Without the cap on the exponent, 2.0 ** 1100 would overflow before `min` could help.
        full = min(self.maximum, self.initial * self.factor ** min(failures - 1, 64))
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
    return max(0.0, delay) if math.isfinite(delay) else None
