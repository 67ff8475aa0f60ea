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

    def find(self, waiter: EventWaiter) -> Event | None:
        """The first event in the log that a run waits for, or ``None``."""
        for received in self.journal.events_since(waiter.cursor, waiter.name):
            if waiter.wants(received):
                return received.event
        return None

    def deliver(self, received: Iterable[Received]) -> None:
        """Wake the runs that wait for one of these events."""
        for each in received:
            for waiter in list(self.waiting):
                if waiter.wants(each):
                    self.scheduler.wake(waiter.future, each.event)

    def look(self) -> None:
        """Look through the log: another process may have received what somebody waits for."""
        for waiter in list(self.waiting):
            event = self.find(waiter)
            if event is not None:
                self.scheduler.wake(waiter.future, event)
