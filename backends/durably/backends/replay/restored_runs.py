"""Runs that an earlier worker has left resting: they rest on, and are replayed when the first of their waits is over.

Of such a run only those records are read that hold it up.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterator
from functools import partial

from durably.backends.replay.events import EventWaiters
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.journal import Journal, nothing
from durably.backends.replay.journal_types import RunRow
from durably.backends.replay.records import Log
from durably.backends.replay.resting import RestingRuns
from durably.backends.replay.scheduler import Scheduler, Wait
from durably.core.errors import JournalError
from durably.core.history import StepRecord
from durably.core.run_events import child_id

__all__ = ["RestoredRuns", "note_going_on", "note_rest"]

logger = logging.getLogger("durably")

TROUBLE_SECONDS = 1.0
"""After which the events are looked through again that cannot be read just now."""


class RestoredRuns:
    """Lets runs rest on that an earlier worker has left so.

    Args:
        host: The worker.
        resting: Its runs that rest.
        crash: Called with the error if the engine itself fails.
    """

    def __init__(self, host: ReplayHost, resting: RestingRuns, crash: Callable[[BaseException], None]) -> None:
        self._host = host
        self._resting = resting
        self._crash = crash
        self._catching_up: asyncio.Task[None] | None = None

    def rest_on(self, row: RunRow, context: contextvars.Context) -> bool:
        """Let a run rest on, if it rests; whether it does.

        Args:
            row: A run that this worker has claimed.
            context: That of runs.
        """
        if not row.rested or self._resting.limit is None:
            return False
        host = self._host
        try:
            waits = _restored_waits(host.log.journal, row.id, host.events, host.scheduler)
        except JournalError as error:
            logger.warning("run %s is replayed, since what it waits for cannot be read: %s", row.id, error)
            return False
        if waits is None:
            return False
        self._resting.set_aside(row, waits)
        if self._catching_up is None:
            host.scheduler.began()  # an event in the log may be what it waits for: a virtual clock must not jump
            self._catching_up = asyncio.get_running_loop().create_task(self._catch_up(), context=context.copy())
            self._catching_up.add_done_callback(self._caught_up)
        return True

    def cancel(self) -> None:
        """Look through the events no further."""
        if self._catching_up is not None:
            self._catching_up.cancel()

    async def _catch_up(self) -> None:
        while True:
            try:
                return await self._host.events.catch_up()
            except JournalError as error:
                logger.warning("cannot look through the events now, will try again: %s", error)
                await asyncio.sleep(TROUBLE_SECONDS)

    def _caught_up(self, task: asyncio.Task[None]) -> None:
        self._catching_up = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the engine failed to look through the events", exc_info=error)
            self._crash(error)
        self._host.scheduler.ended()


def note_rest(log: Log, row: RunRow) -> None:
    """Note that a run has left memory, so that the next worker can let it rest on."""

    def not_noted(error: BaseException) -> None:
        logger.info("run %s is not noted as resting, so the next worker will replay it: %s", row.id, error)

    if log.crash is None:
        log.write(lambda: log.journal.note_rest(row, row.rested), nothing, not_noted)


async def note_going_on(log: Log, row: RunRow) -> bool:
    """Note that a run is driven that had left memory: a crash may be its own. Whether it is still this worker's."""
    return await log.write(lambda: log.journal.note_rest(row, 0))


def _restored_waits(journal: Journal, run_id: str, events: EventWaiters, scheduler: Scheduler) -> list[Wait] | None:
    """What a run waits for; ``None`` if one of its waits is over.

    Args:
        journal: Where its records are.
        run_id: A run whose branches all wait.
        events: Goes on with its waits for events.
        scheduler: Tells of the ends of children.
    """
    records = journal.open_records(run_id)
    children = [child_id(run_id, record.key) for record in records if record.kind == "invoke"]
    now = scheduler.clock.now()
    is_over = any(record.due is not None and record.due <= now for record in records)
    if not records or is_over or journal.ended(children):
        return None
    return list(_waits(records, events, scheduler))


def _waits(records: list[StepRecord], events: EventWaiters, scheduler: Scheduler) -> Iterator[Wait]:
    for record in records:
        if record.status == "started" and record.kind == "wait_for_event":
            yield Wait(record.due, partial(events.keep, events.restore(record)))
        elif record.status == "started" and record.kind == "invoke":
            yield Wait(record.due, partial(scheduler.end_of, child_id(record.run_id, record.key)))
        else:  # a sleep, or the delay of another attempt
            yield Wait(record.due, scheduler.future)
