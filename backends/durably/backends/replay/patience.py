"""Waiting for the lock of a storage that several processes write to, without holding up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from durably.core.errors import JournalBusyError

__all__ = ["patiently"]

T = TypeVar("T")

FIRST_PAUSE, LAST_PAUSE = 0.01, 0.1
"""Seconds between two tries; they double, up to the second."""


async def patiently(change: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Do something to a storage, again while another process holds its lock.

    Args:
        change: What to do. It raises JournalBusyError where it could not begin, and has done nothing then.
        seconds: How long to wait at most.

    Raises:
        JournalBusyError: If the lock was held all the time.
    """
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while True:
        try:
            return await change()
        except JournalBusyError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, LAST_PAUSE)
