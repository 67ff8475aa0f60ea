"""Waiting through outages of an engine's server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from durably.core.errors import EngineUnavailableError

__all__ = ["outlast"]

T = TypeVar("T")

PAUSE = 1.0
"""Seconds between two looks at a server that does not answer."""

logger = logging.getLogger("durably")


async def outlast(what: str, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask for something that may be asked for again, until the server answers.

    Args:
        what: What waits, for the log.
        ask: Asks.
    """
    said = False
    while True:
        try:
            return await ask()
        except EngineUnavailableError as error:
            if not said:
                logger.warning("%s waits until the server at %s answers again: %s", what, error.server, error.reason)
            said = True
            await asyncio.sleep(PAUSE)
