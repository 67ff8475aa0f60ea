"""When a worker delivers what was put off: events of a later time, and runs that are held back until a moment."""

from __future__ import annotations

import logging

from durably.backends.replay.clock import Alarm, Clock
from durably.backends.replay.journal_types import Changes
from durably.backends.replay.records import Log
from durably.core.errors import JournalError

__all__ = ["Deliveries"]

logger = logging.getLogger("durably")


class Deliveries:
    """The deliveries of one worker.

    Args:
        log: Where they are written.
        clock: Where time comes from.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._open = False
        self._alarm = Alarm(clock, self.deliver)

    def open(self) -> None:
        """Deliver from now on, when something is due."""
        self._open = True

    def close(self) -> None:
        """Deliver no more."""
        self._alarm.clear()
        self._open = False

    def apply(self, changes: Changes) -> None:
        """Take note of what a transaction put off."""
        if changes.scheduled is not None:
            self.set_alarm(changes.scheduled)

    def set_alarm(self, due: float | None) -> None:
        """Deliver at a moment, unless it does so before; ``None``: at no moment."""
        if self._open:
            self._alarm.set(due)

    def deliver(self) -> None:
        """Deliver what is due, and let runs begin whose time has come."""
        if self._log.crash is not None:
            return
        self._log.deliver(self._clock.now(), self._delivered, self._not_delivered)

    def _delivered(self) -> None:
        try:
            self.set_alarm(self._log.journal.next_moment())
        except JournalError as error:
            self._not_delivered(error)

    def _not_delivered(self, error: BaseException) -> None:
        if isinstance(error, JournalError):
            logger.warning("cannot deliver scheduled events now, will try again: %s", error)
            self.set_alarm(self._clock.now() + 1)
