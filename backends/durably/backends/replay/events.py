"""Who waits for which event, and which one ends the wait.

A wait that begins looks into the log once. From then on it is told of each event in the order of the log, so that it
gets the first that it wants. That goes on while its run is out of memory, and until the code of the run has come to the
wait again: then nobody has to look through the log a second time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from durably.backends.replay.event_index import WaitIndex
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Received
from durably.backends.replay.scheduler import Future, Scheduler
from durably.core import Event
from durably.core.errors import JournalError
from durably.core.events import matches, same_json
from durably.core.history import StepRecord

__all__ = ["EventWaiter", "EventWaiters"]

PORTION = 100
"""How many events of the log are read in one turn of the event loop."""


class EventWaiter:
    """A step of a run that waits for an event.

    Args:
        run_id: The run.
        key: The key of the step.
        name: The event's name.
        match: Dotted paths and the values that must be there.
        cursor: Only events after this place in the log count.
        due: Only events received by then count, or ``None``.

    Attributes:
        event: The one that ended the wait, or ``None``.
        future: Gets the event; ``None`` if nothing is to be woken.
        listens: Whether it is told of events; else what was received before must be looked through first.
    """

    __slots__ = ("cursor", "due", "event", "future", "key", "listens", "match", "name", "run_id")

    def __init__(self, run_id: str, key: str, name: str, match: dict[str, Any], cursor: int, due: float | None) -> None:
        self.run_id = run_id
        self.key = key
        self.name = name
        self.match = match
        self.cursor = cursor
        self.due = due
        self.event: Event | None = None
        self.future: Future | None = None
        self.listens = True

    @classmethod
    def of(cls, record: StepRecord) -> EventWaiter:
        """The wait that a record says has begun; :meth:`is_told_by` says whether it does."""
        name, match = _asked(record.input)
        return cls(record.run_id, record.key, name, match, int(record.output or 0), record.due)

    def is_told_by(self, asked: str) -> bool:
        """Whether the input of its record says all that is to be known of it: a long one is kept as a digest."""
        try:
            name, match = _asked(asked)
        except ValueError:
            return False
        return bool(name == self.name) and same_json(match, self.match)

    def is_same_as(self, other: EventWaiter) -> bool:
        """Whether another is for the same events."""
        mine, others = (self.name, self.cursor, self.due), (other.name, other.cursor, other.due)
        return mine == others and same_json(self.match, other.match)

    def wants(self, received: Received) -> bool:
        """Whether this is an event it waits for."""
        event = received.event
        return (
            event.name == self.name
            and received.seq > self.cursor
            and (self.due is None or received.at <= self.due)
            and matches(event, self.match)
        )


class EventWaiters:
    """The waits for events of the runs of one worker.

    Args:
        journal: Where events are logged.
        scheduler: Wakes the runs.

    Attributes:
        waiting: Those that no event has ended.
    """

    def __init__(self, journal: Journal, scheduler: Scheduler) -> None:
        self.journal = journal
        self.scheduler = scheduler
        self.waiting: WaitIndex[EventWaiter] = WaitIndex()
        self._kept: dict[str, dict[str, EventWaiter]] = {}
        self._missed: dict[EventWaiter, None] = {}
        self._told = 0

    def open(self) -> None:
        """Tell of the events from now on."""
        self._told = self.journal.cursor()

    # -- the code of a run

    def begin(self, waiter: EventWaiter) -> EventWaiter:
        """Begin a wait, or go on with the one that was kept; it has its event if that is in the log."""
        kept = self._kept.get(waiter.run_id, {}).pop(waiter.key, None)
        if kept is not None and kept.listens and kept.is_same_as(waiter):
            return kept
        if kept is not None:
            self._drop(kept)
        waiter.event = self.find(waiter)
        if waiter.event is None:
            self.waiting.add(waiter)
        return waiter

    def end(self, waiter: EventWaiter, future: Future) -> None:
        """The code waits for a future no more; nor does the wait go on, unless it is kept."""
        if waiter.future is future:
            self.waiting.discard(waiter)
            waiter.cursor = max(waiter.cursor, self._told)  # up to there it was told of all

    def find(self, waiter: EventWaiter) -> Event | None:
        """The first event in the log that a run waits for, or ``None``."""
        for received in self.journal.events_since(waiter.cursor, waiter.name):
            if waiter.wants(received):
                return received.event
        return None

    # -- runs whose code is not in memory

    def keep(self, waiter: EventWaiter) -> Future:
        """Let a wait go on without the code of its run; a future of the event."""
        self._kept.setdefault(waiter.run_id, {})[waiter.key] = waiter
        waiter.future = asyncio.get_running_loop().create_future()
        return waiter.future

    def restore(self, record: StepRecord) -> EventWaiter:
        """Go on with a wait that an earlier worker began; :meth:`catch_up` tells it what came meanwhile."""
        waiter = EventWaiter.of(record)
        waiter.listens = False
        self.waiting.add(waiter)
        self._missed[waiter] = None
        return waiter

    def forget(self, run_id: str) -> None:
        """Let go of the waits of a run that were kept."""
        for waiter in self._kept.pop(run_id, {}).values():
            self._drop(waiter)

    def _drop(self, waiter: EventWaiter) -> None:
        self.waiting.discard(waiter)
        self._missed.pop(waiter, None)

    # -- what is received

    def deliver(self, received: Iterable[Received]) -> None:
        """Wake the runs that wait for one of these events."""
        for each in received:
            place = self._told
            while place < each.seq - 1:  # another process has received some before
                between, place = self.journal.log_page(place, self.waiting.names, PORTION)
                for earlier in between:
                    if earlier.seq < each.seq:
                        self._tell(earlier)
            self._tell(each)

    async def look(self) -> None:
        """Look at what is new in the log: another process may have received what somebody waits for."""
        end = self.journal.cursor()
        while self._told < end:
            page, place = self.journal.log_page(self._told, self.waiting.names, PORTION)
            for each in page:
                self._tell(each)
            self._told = max(self._told, place)
            await asyncio.sleep(0)

    async def catch_up(self) -> None:
        """Tell the waits that earlier workers began of what came meanwhile: one look through the log for all of them.

        Raises:
            JournalError: If the log cannot be read now. To be called again.
        """
        while self._missed:
            missed, self._missed = self._missed, {}
            index: WaitIndex[EventWaiter] = WaitIndex()
            for waiter in missed:
                index.add(waiter)
            try:
                await self._look_for(index, min(waiter.cursor for waiter in missed))
            except JournalError:
                self._missed = {**missed, **self._missed}
                raise
            for waiter in index:
                waiter.listens = True

    async def _look_for(self, index: WaitIndex[EventWaiter], place: int) -> None:
        """Look through the log, from a place to its end, for what some waits have missed."""
        while place < self.journal.cursor():
            page, place = self.journal.log_page(place, index.names, PORTION)
            for each in page:
                for waiter in index.find(each.event):
                    if waiter.wants(each):
                        index.discard(waiter)
                        self._found(waiter, each.event)
            await asyncio.sleep(0)

    def _tell(self, received: Received) -> None:
        for waiter in self.waiting.find(received.event):
            if waiter.listens and waiter.wants(received):
                self._found(waiter, received.event)
        self._told = max(self._told, received.seq)

    def _found(self, waiter: EventWaiter, event: Event) -> None:
        if waiter not in self.waiting:  # its run needs it no more
            return
        self.waiting.discard(waiter)
        waiter.event, waiter.listens = event, True
        if waiter.future is not None:
            self.scheduler.wake(waiter.future, event)


def _asked(text: str) -> tuple[Any, Any]:
    """The name and the match that the input of a record says; raises ValueError if it is a digest."""
    name, match = json.loads(f"[{text}]")[:2]
    return name, match
