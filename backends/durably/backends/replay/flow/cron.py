"""Crons: when the next time comes, and one run for each, whichever worker is up."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from durably.backends.cron_times import due_times, times_after
from durably.backends.replay.clock import Clock, Timer
from durably.backends.replay.flow.store import Entry, FlowStore
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.journal_types import Changes
from durably.core import Function
from durably.core.errors import JournalError
from durably.core.flow import Cron
from durably.core.run_events import cron_event

__all__ = ["CronTicks"]

logger = logging.getLogger("durably")

TROUBLE_SECONDS = 1.0

AT_ONCE = 20
"""How many missed times of one cron have their runs created in one transaction: the event loop stands still for it."""


class CronTicks:
    """The crons of the functions that one worker serves.

    The next time of each is kept in the journal, and moves on in the transaction that creates the run of the one
    before: so each has one run, whatever crashes and however many workers are up.

    Args:
        host: The worker.
        store: Where the times are kept.
        clock: Where time comes from.
    """

    def __init__(self, host: ReplayHost, store: FlowStore, clock: Clock) -> None:
        self._host = host
        self._store = store
        self._clock = clock
        self._timer: Timer | None = None
        self._crons: dict[str, tuple[Function[Any, Any], Cron]] = {}

    async def open(self) -> None:
        """Note the crons of this worker's functions, and begin to let them come."""
        self._crons = {each.id: (each, each.cron) for each in self._host.functions.values() if each.cron is not None}
        await self._host.log.write(self.note)
        if self._crons:
            self.fire()

    def note(self) -> None:
        """Keep the next times of this worker's crons, as far as they are not known; forget what is no cron any more."""
        now = self._clock.now()
        with self._host.log.journal.transaction():
            for function in self._host.functions.values():
                known = self._store.find("cron", function.id)
                if function.cron is None:
                    self._store.drop("cron", function.id)
                elif known is None or known.value != asdict(function.cron):
                    self._put(function.id, function.cron, next(times_after(function.cron, now)))

    def look(self) -> None:
        """Wait for the next time again, after another worker let one come."""
        if self._crons and self._timer is not None:
            self.fire()

    def close(self) -> None:
        """Let none come any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fire(self) -> None:
        """Start the runs whose time has come, and wait for the next."""
        self.close()
        if self._host.log.crash is not None:
            return
        self._host.log.write(self._tick_all, self._ticked, self._not_ticked)

    def _tick_all(self) -> tuple[Changes, float]:
        """Start the runs of all crons that are due; what that did, and when the next is."""
        changes = Changes()
        with self._host.log.journal.transaction():
            for entry in self._store.due("cron", self._clock.now()):
                if entry.id in self._crons:
                    self._tick(entry, changes)
            moments = [each.due for each in self._store.all("cron") if each.id in self._crons and each.due is not None]
        return changes, min(moments, default=self._clock.now() + TROUBLE_SECONDS)

    def _ticked(self, done: tuple[Changes, float]) -> None:
        changes, again = done
        self._host.log.tell(changes)
        self._fire_at(again)

    def _not_ticked(self, error: BaseException) -> None:
        if isinstance(error, JournalError):
            logger.warning("cannot start the runs of crons now, will try again: %s", error)
            self._fire_at(self._clock.now() + TROUBLE_SECONDS)

    def _fire_at(self, moment: float) -> None:
        self.close()
        # In the background: what waits for quiet does not wait for the end of all crons.
        self._timer = self._clock.call_at(moment, self.fire, background=True)

    def _tick(self, entry: Entry, changes: Changes) -> None:
        """Start the runs of one cron within a transaction."""
        function, _ = self._crons[entry.id]
        cron, now, due = Cron(**entry.value), self._clock.now(), entry.due or 0.0
        moments = due_times(cron, due, now, AT_ONCE)
        log = self._host.log
        # Of many that were missed, a worker takes as many as it has room for.
        worker = log.worker if len(moments) == 1 and log.takes_runs() else None
        changes.claimable = changes.claimable or worker is None
        for moment in moments:
            event = cron_event(function, cron.schedule, datetime.fromtimestamp(moment, ZoneInfo(cron.timezone)))
            new = self._host.new_run(event.id or "", function.id, event.model_dump_json())
            log.journal.add_run(new, worker, now, changes)
        self._put(entry.id, cron, next(times_after(cron, moments[-1])))

    def _put(self, function: str, cron: Cron, due: float) -> None:
        self._store.put(Entry(kind="cron", id=function, gate="cron", due=due, value=asdict(cron)))
