"""The journal of the replay engine: a storage with the rules that every storage shares.

A journal is a set of runs, the records of each, and a log of events. What the engine calls is one transaction: it
happens whole or not at all, and it has reached the disk (where there is one) when it returns. The engine hands what
changes something to `Journal.write`: a storage that waits for a disk may do that without holding up the event loop.

A storage of your own is a subclass of `Journal` that provides the abstract methods, which stand in ``storage.py``;
docs/conformance.md shows one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from durably.backends.replay.event_rules import EventRules
from durably.backends.replay.journal_types import Changes, NewRun, Received, RunRow, Subscription
from durably.backends.replay.ownership import Ownership
from durably.core import Event
from durably.core.history import StepRecord
from durably.core.run_view import RunStatus

__all__ = ["Journal", "Received", "RunRow", "Subscription", "nothing"]

T = TypeVar("T")


def nothing(result: object) -> None:
    """What is done where nothing is to be done."""


class Journal(EventRules, Ownership):
    """Storage for runs. See the module's docstring.

    A storage does not override the rules: the methods of this class but :meth:`write` and :meth:`abandon`, and those of
    the classes between this one and :class:`~durably.backends.replay.storage.Storage`.
    """

    def write(
        self,
        change: Callable[[], T],
        then: Callable[[T], None] = nothing,
        otherwise: Callable[[BaseException], None] | None = None,
        *,
        alone: bool = False,
    ) -> asyncio.Future[T]:
        """Make a change: whole or not at all, in the order of the calls, and on the disk when the future is done.

        Here it is made at once. A storage that overrides this may let several changes share a transaction, as long as
        each of them fails alone. It calls all of this in the event loop.

        Args:
            change: What to do to this journal. It may be called again where the disk refused it.
            then: Called with what the change returned once it is made, even if nobody waits for it any more.
            otherwise: Called with the error if it was not made.
            alone: Whether nobody else has anything to do, so that the event loop may stand still for a moment.

        Returns:
            A future of what the change returned, or raised.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            result = change()
        except BaseException as error:
            future.set_exception(error)
            if otherwise is not None:
                future.exception()  # it is told, whether anybody waits or not
                otherwise(error)
            return future
        then(result)
        future.set_result(result)
        return future

    async def start(self) -> None:
        """Open it for a worker. A storage that waits for a lock or a disk then does so away from the event loop."""
        self.open()

    async def stop(self) -> None:
        """Close it for a worker that has ended."""
        self.close()

    def abandon(self, error: BaseException) -> None:
        """Do not make the changes that wait, since their worker has died; whoever waits for them gets the error."""
        return  # here none wait

    def create(self, new: NewRun, *, worker: str | None, now: float) -> tuple[RunRow, Changes]:
        """Create a run for a worker, or for any worker. A known id gives the run that has it."""
        changes = Changes()
        with self.transaction():
            row = self.add_run(new, worker, now, changes)
        return row, changes

    def commit(
        self,
        record: StepRecord,
        fence: int,
        *,
        worker: str | None = None,
        status: RunStatus | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        served: Iterable[str] = (),
        cancel: str | None = None,
    ) -> Changes:
        """Append a record to a run that this worker owns, and in the same transaction what the record is about.

        Args:
            record: The record.
            fence: The token the run was claimed with.
            worker: This worker, which takes the new runs of functions it serves.
            status: The run's new status, with its last record.
            runs: Runs to create.
            events: Events to send.
            served: The ids of functions this worker serves.
            cancel: A run to cancel.

        Raises:
            StaleRunError: If the run has another owner or has ended. Nothing was written.
        """
        changes = Changes()
        with self.transaction():
            self.append(record, fence)
            for new in runs:
                self.add_run(new, worker if new.function in served else None, record.at, changes)
            if events:
                self.receive_all(events, worker, served, record.at, changes)
            if cancel is not None:
                self.end_cancelled(cancel, record.at, changes)
            if status is not None:
                self.set_status(record.run_id, status, record.at)
                changes.ended.append(record.run_id)
                self.cancel_children(record.run_id, record.at, changes)
                self.leave(record.run_id, record.at, changes)
        return changes

    def cancel(self, run_id: str, now: float) -> Changes:
        """End a live run, and the live runs it waits for, as cancelled; its owner's next write is refused."""
        changes = Changes()
        with self.transaction():
            self.end_cancelled(run_id, now, changes)
        return changes
