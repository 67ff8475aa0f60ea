"""When the next attempt starts."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from durably.core.errors import DefinitionError, ModelError, RetryAfterError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with jitter: the "equal jitter" form of the AWS Architecture Blog (Brooker, 2015).

    Args:
        initial: Seconds before the second attempt.
        factor: What each further delay is multiplied by.
        maximum: The longest delay, in seconds.
        jitter: The share of a delay that is left to chance, 0 to 1. The chance is drawn from the step's
            idempotency key, so that replays agree.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.initial < 0 or self.factor < 1 or self.maximum < 0 or not 0 <= self.jitter <= 1:
            raise DefinitionError(f"{self} is not a retry policy: delays >= 0, factor >= 1, jitter from 0 to 1")

    def delay(self, failures: int, seed: str) -> float:
        """Seconds to wait after this many failures (at least 1)."""
        # The exponent is capped: 2.0 ** 1100 would overflow before `min` could help.
        full = min(self.maximum, self.initial * self.factor ** min(failures - 1, 64))
        draw = int.from_bytes(blake2b(f"{seed}\0{failures}".encode(), digest_size=4).digest()) / 2**32
        return full * (1 - self.jitter * draw)

    def next_delay(self, error: BaseException, failures: int, seed: str) -> float:
        """Like :meth:`delay`, but an error that names its own delay (``RetryAfterError``) is obeyed."""
        if isinstance(error, RetryAfterError):
            return error.delay
        if isinstance(error, ModelError) and error.retry_after is not None:
            return max(0.0, error.retry_after)
        return self.delay(failures, seed)
