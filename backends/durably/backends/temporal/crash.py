"""Dying as a process does, for the harness: nothing more is written, and Temporal has to find out by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["CRASHED", "Crash"]

CRASHED = "this worker has crashed"
"""What a workflow task fails with in a worker that the harness killed. Of a process that is gone it would run out of
time."""


class Crash:
    """The end of one worker, once the harness has brought it about.

    Attributes:
        signal: What killed it, or ``None``. Workflows and activities look at it before they say anything to the server.
        happened: Set from then on.
    """

    def __init__(self) -> None:
        self.signal: BaseException | None = None
        self.happened = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] | None = None

    def arm(self, stop: Callable[[], None]) -> None:
        """Make the worker of this event loop mortal.

        Args:
            stop: Cuts off the bodies that run in it.
        """
        self._loop = asyncio.get_running_loop()
        self._stop = stop

    def __call__(self, signal: BaseException) -> None:
        """Die of a signal; the first one counts."""
        if self.signal is None and self._loop is not None:
            self.signal = signal
            # A workflow runs in a thread of its own: what belongs to the loop is touched by the loop alone.
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.happened.set()
        if self._stop is not None:
            self._stop()
