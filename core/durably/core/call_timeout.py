"""How long a program's call may wait for the engine, where the call itself says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from durably.core.durations import Duration, duration_seconds

__all__ = ["own_timeout", "within"]

GRACE_SECONDS = 1.0
"""How much longer an engine gets that keeps the time itself, so that it can say what it waited for."""

_seconds: ContextVar[float | None] = ContextVar("durably_call_timeout", default=None)


@asynccontextmanager
async def within(timeout: Duration | None) -> AsyncIterator[None]:
    """Let what is called in this block take so long at most; ``None``: as long as the engine lets it.

    Raises:
        TimeoutError: If it took longer.
    """
    if timeout is None:
        yield
        return
    seconds = duration_seconds(timeout, "timeout")
    token = _seconds.set(seconds)
    try:
        async with asyncio.timeout(seconds + GRACE_SECONDS):
            yield
    finally:
        _seconds.reset(token)


def own_timeout(usual: float) -> float:
    """For how many seconds this call may wait, where it usually may so long."""
    own = _seconds.get()
    return usual if own is None else own
