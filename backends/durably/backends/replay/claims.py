"""Which runs a worker takes up: those that no worker has, as far as it has room for them.

Does not own: which runs are free, and how one is taken (``ownership.py``), and what becomes of it (``driver.py``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from durably.backends.replay.clock import Alarm, Clock
from durably.backends.replay.driver import Driver
from durably.backends.replay.journal_types import Changes, Claim
from durably.backends.replay.records import Log
from durably.core import Function
from durably.core.errors import JournalError

__all__ = ["Claims"]

logger = logging.getLogger("durably")

PORTION = 20
"""How many runs are taken up in one go: others have a turn of the event loop before the next ones."""


class Claims:
    """The claims of one worker.

    Args:
        functions: What it serves.
        log: Where it writes what it takes.
        driver: Drives what it has taken, and knows for how much there is room.
        clock: Tells when the pauses between recoveries are over.
    """

    def __init__(self, functions: Mapping[str, Function[Any, Any]], log: Log, driver: Driver, clock: Clock) -> None:
        self._functions = functions
        self._log = log
        self._driver = driver
        self._clock = clock
        self._open = False
        self._turned_away = False
        self._claiming = self._claim_again = False
        self._recovery = Alarm(clock, self.recover)

    def open(self) -> None:
        """Take up runs from now on, when they become free."""
        self._open = True

    def close(self) -> None:
        """Take up no more."""
        self._recovery.clear()
        self._open = False

    def apply(self, changes: Changes) -> None:
        """Take up runs that were held back and may begin now."""
        if changes.claimable and self._open:
            self._turned_away = True
            self.fill_up()

    def claim_runs(self, otherwise: Callable[[BaseException], None] | None = None) -> asyncio.Future[Claim] | None:
        """Take up the live runs that no worker has, as far as there is room for them.

        Args:
            otherwise: Called with the error if that cannot be written.

        Returns:
            What it takes; ``None`` if there is nothing to take, or it is at it.

        Raises:
            JournalError: If it cannot be looked.
        """
        room = self._room
        if room == 0 or self._claiming:
            self._claim_again = self._claiming
            return None
        served, now, unfit, moment = list(self._functions), time.time(), self._driver.unfit, self._clock.now()
        suspects = 0 if self._driver.on_trial else 1
        nothing = self._log.journal.leaves(self._log.worker, served, now, unfit, moment=moment, suspects=suspects)
        if nothing is not None:
            self._claimed(1, nothing)
            return None

        def refused(error: BaseException) -> None:
            self._claiming = False
            if otherwise is not None:
                otherwise(error)

        self._claiming = True
        limit = PORTION if room is None else min(room, PORTION)
        take = partial(self._log.journal.claim, self._log.worker, served, now, unfit)
        return self._log.write(
            lambda: take(moment=moment, suspects=suspects, limit=limit), partial(self._claimed, limit), refused
        )

    def _claimed(self, limit: int, claim: Claim) -> None:
        again, self._claiming, self._claim_again = self._claim_again, False, False
        self._turned_away = again or len(claim.runs) >= limit  # there may be more, or more became free meanwhile
        for row in claim.runs:
            self._driver.spawn(row)
        self._recovery.set(claim.due)
        if self._turned_away:
            self._log.call_soon(self.fill_up)

    async def claim(self) -> None:
        """Take them up, and wait until that is written."""
        claim = self.claim_runs()
        if claim is not None:
            await claim

    def recover(self) -> None:
        """Take up runs that are free now, such as those whose pause after their crashes is over."""
        if self._log.crash is not None:
            return
        try:
            self.claim_runs(self._not_claimed)
        except JournalError as error:
            self._not_claimed(error)

    def _not_claimed(self, error: BaseException) -> None:
        if isinstance(error, JournalError):
            logger.warning("cannot take up runs now, will try again: %s", error)
            self._recovery.set(self._clock.now() + 1)

    @property
    def _room(self) -> int | None:
        """How many more runs it takes now, when those have begun that are being created; ``None`` for any number."""
        room = self._driver.room
        return None if room is None else max(0, room - self._log.placing)

    def has_room(self) -> bool:
        """Whether it takes one more run; if not, it looks again when one rests or ends."""
        has_room = self._room != 0
        self._turned_away = self._turned_away or not has_room
        return has_room

    def fill_up(self) -> None:
        """Take up runs for which there was no room before."""
        if self._turned_away and self._room != 0:
            self.recover()
