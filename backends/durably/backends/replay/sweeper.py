"""When a worker forgets finished runs by itself: now and then, and slowly, where a retention says so."""

from __future__ import annotations

import asyncio
import logging

from durably.backends.replay.clock import Clock
from durably.backends.replay.journal_types import Changes
from durably.backends.replay.pruning import Pruner
from durably.core.errors import JournalError

__all__ = ["Sweeper"]

logger = logging.getLogger("durably")

SWEEP_SECONDS = 60.0
SWEEP_RUNS = 1000
"""A sweep begins when so much time has passed, or so many runs have ended, since the last one began."""

SHARE = 0.2
"""The part of the time that a sweep may take."""


class Sweeper:
    """Has a pruner sweep from time to time.

    Args:
        pruner: What forgets.
        clock: Tells when a sweep is due.
    """

    def __init__(self, pruner: Pruner, clock: Clock) -> None:
        self._pruner = pruner
        self._clock = clock
        self._last = clock.now()
        self._ended = 0
        self._task: asyncio.Task[None] | None = None

    def apply(self, changes: Changes) -> None:
        """Count the runs that ended, and look whether a sweep is due."""
        self._ended += len(changes.ended) + len(changes.cancelled)
        self.look()

    def look(self) -> None:
        """Begin a sweep if one is due."""
        due = self._ended >= SWEEP_RUNS or self._clock.now() >= self._last + SWEEP_SECONDS
        if due and self._task is None and self._pruner.has_rules:
            self._last, self._ended = self._clock.now(), 0
            self._task = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        try:
            gone = await self._pruner.prune(None, share=SHARE)
            logger.debug("forgotten by their retention: %s", gone)
        except JournalError as error:
            logger.warning("cannot forget finished runs now, will try again: %s", error)
        finally:
            self._task = None

    async def stop(self) -> None:
        """End a sweep that goes on; the next one takes up what it left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
