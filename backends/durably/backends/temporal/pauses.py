"""How long is waited between tries of something that a server cannot do just now."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["pauses"]


def pauses(shortest: float, longest: float) -> Iterator[float]:
    """Seconds without end: they double, up to the longest, and are shortened at random, so that not all come at once.

    Args:
        shortest: The first, in seconds.
        longest: The last ones.
    """
    pause = shortest
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, longest)
