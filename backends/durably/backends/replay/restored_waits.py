"""What a run waits for that an earlier worker has left, told by those of its records that hold it up.

Of such a run nothing else is read: its code is replayed when the first of its waits is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from durably.backends.replay.events import EventWaiters
from durably.backends.replay.journal import Journal
from durably.backends.replay.scheduler import Scheduler, Wait
from durably.core.history import StepRecord
from durably.core.run_events import child_id

__all__ = ["restored_waits"]


def restored_waits(journal: Journal, run_id: str, events: EventWaiters, scheduler: Scheduler) -> list[Wait] | None:
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
