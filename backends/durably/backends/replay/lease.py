"""The lease of a worker: until when its runs are its own, and what it does when it finds that over.

A process that was stopped for longer does not know it. Before it begins a body it looks at the clock; if the lease is
over, it takes a new one and asks the journal which runs are still its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from durably.backends.replay.journal import Journal

__all__ = ["LEASE_SECONDS", "Lease"]

LEASE_SECONDS = 15.0


class Lease:
    """The lease of one worker.

    Args:
        journal: Where other workers read it.
        worker: The worker's id.

    Attributes:
        until: When it is over, in seconds since 1970 by the wall clock; 0 before the first one.
        lapsed: Called when it was over before it was renewed: some runs may have another owner by now.
    """

    def __init__(self, journal: Journal, worker: str) -> None:
        self.until = 0.0
        self.lapsed: Callable[[], None] = lambda: None
        self._journal = journal
        self._worker = worker

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew it."""
        return time.time() > self.until - LEASE_SECONDS * 2 / 3

    async def renew(self) -> None:
        """Take it for another while.

        Raises:
            JournalError: If that cannot be written, or the runs cannot be looked at. The lease is what it was.
        """
        now = time.time()
        await self._journal.write(lambda: self._journal.lease(self._worker, now + LEASE_SECONDS))
        if now >= self.until:
            # After the lease is written, nobody takes a run any more; before it, anybody may have.
            self.lapsed()
        self.until = now + LEASE_SECONDS

    def lose(self) -> None:
        """Let it be over, as after a long stop of the process. For the harness."""
        self._journal.bury(self._worker)
        self.until = 0.0
