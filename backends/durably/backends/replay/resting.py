"""Runs that wait and are out of memory: what is kept of each is what wakes it. Its code is replayed then.

Owns: which runs leave memory, and what is kept of them. Does not own: when a run rests (``scheduler.py``), how its code
is unwound and driven again (``driver.py``), and what wakes one that another worker has left (``restored_runs.py``).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from durably.backends.replay.journal_types import RunRow
from durably.backends.replay.scheduler import Future, RunScheduler, Scheduler, Wait
from durably.core.errors import SuspendSignal

__all__ = ["RestingRuns"]


@dataclass(frozen=True, slots=True)
class _Resting:
    """A run that rested when it was last looked at, and is in memory."""

    row: RunRow
    scheduler: RunScheduler
    may_leave: Callable[[], bool]
    records: int


class _Aside:
    """A run that is out of memory.

    Args:
        row: The run, as its worker has claimed it.
        waits: What it waits for.
        scheduler: Wakes it.
        wake: Called with its id when the first of its waits is over.
    """

    __slots__ = ("_futures", "_scheduler", "_timers", "_wake", "row")

    def __init__(self, row: RunRow, waits: Sequence[Wait], scheduler: Scheduler, wake: Callable[[str], None]) -> None:
        self.row = row
        self._scheduler = scheduler
        self._wake = wake
        self._futures = [wait.again() for wait in waits if wait.again is not None]
        self._timers = [
            scheduler.clock.call_at(wait.due, partial(scheduler.wake, future))
            for wait, future in zip(waits, self._futures, strict=True)
            if wait.due is not None
        ]
        for future in self._futures:
            future.add_done_callback(self._woken)

    def drop(self) -> None:
        """Let it not be woken any more."""
        for timer in self._timers:
            timer.cancel()
        for future in self._futures:
            future.cancel()

    def _woken(self, future: Future) -> None:
        if future.cancelled() or future.exception() is not None:  # dropped, or its worker has died
            return
        self._wake(self.row.id)
        self._scheduler.ended()  # whoever woke it has counted it as active


class RestingRuns:
    """The runs of one worker that wait. A limited number of them stays in memory.

    Args:
        limit: How many stay; the one that has rested longest leaves first. ``None`` for all.
        scheduler: Wakes those that have left.
        resume: Drives a run again that has left.
        note: Writes down that a run has left memory, so that the next worker needs not read all its records.
    """

    def __init__(
        self,
        limit: int | None,
        scheduler: Scheduler,
        *,
        resume: Callable[[RunRow], None],
        note: Callable[[RunRow], None],
    ) -> None:
        self.limit = limit
        self._scheduler = scheduler
        self._resume = resume
        self._note = note
        # Callbacks keep the context they were made in. That of a run's code holds all that the code knows.
        self._context = contextvars.Context()
        self._here: dict[str, _Resting] = {}
        self._aside: dict[str, _Aside] = {}

    @property
    def rows(self) -> list[RunRow]:
        """The runs that are out of memory."""
        return [each.row for each in self._aside.values()]

    def has_left(self, run_id: str) -> bool:
        """Whether a run is out of memory, or on its way out."""
        return run_id in self._aside

    def rests(self, row: RunRow, scheduler: RunScheduler, may_leave: Callable[[], bool], records: int) -> None:
        """Note that all branches of a run wait; if that are too many runs, the oldest of them leaves memory.

        Args:
            row: The run.
            scheduler: How it waits.
            may_leave: Whether its code can be unwound without a loss.
            records: How many it has.
        """
        if self.limit is None:
            return
        self.goes_on(row.id)
        self._here[row.id] = _Resting(row, scheduler, may_leave, records)
        while len(self._here) > self.limit:
            # Not at once: what its code has begun beside the wait, and may not, comes first and is refused.
            oldest = self._here.pop(next(iter(self._here)))
            asyncio.get_running_loop().call_soon(self._leave, oldest, context=self._context)

    def goes_on(self, run_id: str) -> None:
        """Note that a run rests no more, or is no more in memory."""
        self._here.pop(run_id, None)

    def drop(self, run_id: str) -> RunRow | None:
        """Let go of a run that is out of memory; the run, or ``None`` if it was none of these."""
        aside = self._aside.pop(run_id, None)
        if aside is None:
            return None
        aside.drop()
        return aside.row

    def clear(self) -> list[str]:
        """Let go of all that are out of memory; their ids."""
        gone = list(self._aside)
        for run_id in gone:
            self.drop(run_id)
        return gone

    def _leave(self, run: _Resting) -> None:
        waits = run.scheduler.waits()
        if waits is None or not run.may_leave():
            return
        # Before its code is unwound: what happens meanwhile wakes it as well.
        row = replace(run.row, rested=run.records) if all(wait.recorded() for wait in waits) else run.row
        self.set_aside(row, waits)
        if row.rested:
            self._note(row)
        run.scheduler.interrupt(SuspendSignal)

    def set_aside(self, row: RunRow, waits: Sequence[Wait]) -> None:
        """Keep what wakes a run that is not in memory, or will not be."""
        self._aside[row.id] = _Aside(row, waits, self._scheduler, self.wake)

    def wake(self, run_id: str) -> None:
        """Have a run driven that is out of memory."""
        row = self.drop(run_id)
        if row is not None:
            self._resume(row)
