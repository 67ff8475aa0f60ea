"""Who waits for which event, and which one ends the wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Received
from durably.backends.replay.scheduler import Scheduler
from durably.core import Event
from durably.core.events import matches

__all__ = ["EventWaiter", "EventWaiters"]


class EventWaiter:
    """A run that waits for an event.

    Attributes:
        name: The event's name.
        match: Dotted paths and the values that must be there.
        cursor: Only events after this place in the log count.
        due: Only events received by then count, or ``None``.
        future: Gets the event.
    """

    def __init__(self, name: str, match: dict[str, Any], cursor: int, due: float | None) -> None:
        self.name = name
        self.match = match
        self.cursor = cursor
        self.due = due
        self.future: asyncio.Future[Event | None] = asyncio.get_running_loop().create_future()

    def wants(self, received: Received) -> bool:
        """Whether this is the event it waits for."""
        event = received.event
        return (
            event.name == self.name
            and received.seq > self.cursor
            and (self.due is None or received.at <= self.due)
            and matches(event, self.match)
        )


class EventWaiters:
    """The runs of one worker that wait for events.

    Args:
        journal: Where events are logged.
        scheduler: Wakes the runs.
    """

    def __init__(self, journal: Journal, scheduler: Scheduler) -> None:
        self.journal = journal
        self.scheduler = scheduler
        self.waiting: set[EventWaiter] = set()
        self._looked = 0

    def find(self, waiter: EventWaiter) -> Event | None:
        """The first event in the log that a run waits for, or ``None``."""
        for received in self.journal.events_since(waiter.cursor, waiter.name):
            if waiter.wants(received):
                return received.event
        return None

    def wait_again(self, waiter: EventWaiter) -> asyncio.Future[Event | None]:
        """Wait for the same event without the code of the run, from now on; a future of it."""
        again = EventWaiter(waiter.name, waiter.match, waiter.cursor, waiter.due)
        self.waiting.add(again)
        again.future.add_done_callback(lambda _: self.waiting.discard(again))
        return again.future

    def deliver(self, received: Iterable[Received]) -> None:
        """Wake the runs that wait for one of these events."""
        for each in received:
            for waiter in list(self.waiting):
                if waiter.wants(each):
                    self.scheduler.wake(waiter.future, each.event)

    def look(self) -> None:
        """Look at what is new in the log: another process may have received what somebody waits for."""
        since, self._looked = self._looked, self.journal.cursor()
        for name in {waiter.name for waiter in self.waiting}:
            self.deliver(self.journal.events_since(since, name))
