"""How a worker, or a client, looks at what other processes did to its journal."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from itertools import islice

from durably.backends.replay.claims import Claims
from durably.backends.replay.deliveries import Deliveries
from durably.backends.replay.driver import Driver
from durably.backends.replay.flow.cron import CronTicks
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.upkeep import Upkeep
from durably.core.errors import CancelSignal, JournalBusyError, JournalError
from durably.core.run_view import RunStatus

__all__ = ["Watcher"]

logger = logging.getLogger("durably")

PORTION = 200
"""How many runs are looked at in one turn of the event loop."""


class Watcher:
    """Looks again and again. It tells those whom it concerns what it found.

    Args:
        host: The worker.
        driver: The runs that it drives.
        upkeep: Looks after its lease.
        claims: Takes up runs.
        deliveries: Delivers what is due.
        crons: Starts runs at their times, or ``None``.
    """

    def __init__(
        self,
        host: ReplayHost,
        driver: Driver,
        *,
        upkeep: Upkeep,
        claims: Claims,
        deliveries: Deliveries,
        crons: CronTicks | None,
    ) -> None:
        self._host = host
        self._journal = host.log.journal
        self._driver = driver
        self._upkeep = upkeep
        self._claims = claims
        self._deliveries = deliveries
        self._crons = crons
        self._task: asyncio.Task[None] | None = None

    def begin(self, poll: float, *, is_client: bool) -> None:
        """Look from now on.

        Args:
            poll: Seconds between two looks.
            is_client: Whether there is no worker, only somebody who waits.
        """
        look = self._look_on if is_client else self._watch
        self._task = asyncio.create_task(look(poll))

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_on(self, poll: float) -> None:
        """Look at the runs whose ends somebody waits for. It is all that a client does by itself."""
        while True:
            await asyncio.sleep(poll)
            try:
                if self._journal.changed():
                    await self._look_at_ends()
            except JournalError as error:
                logger.warning("cannot look after runs now, will try again: %s", error)

    async def _watch(self, poll: float) -> None:
        """Look after the lease, and at what other processes did."""
        while True:
            due = time.monotonic() + poll
            await asyncio.sleep(poll)
            self._upkeep.lag = time.monotonic() - due
            try:
                await self._upkeep.renew()
                await self._claims.claim()
                await self._host.slots.look()
                if self._journal.changed():
                    await self._look_around()
            except JournalBusyError:
                continue  # the storage says it itself if that takes long
            except JournalError as error:
                logger.warning("cannot look after runs now, will try again: %s", error)
            self._upkeep.look()

    async def _look_around(self) -> None:
        """Find what concerns the runs that wait here, after another process wrote to the journal."""
        await self._look_at_ends()
        await self._host.events.look()
        async for portion in _portions(self._driver.held):
            for run_id in self._journal.lost(self._host.log.worker, portion):
                row = self._journal.get(run_id)
                if row is not None and row.status is RunStatus.CANCELLED:
                    self._driver.interrupt(run_id, CancelSignal)
        self._deliveries.set_alarm(self._journal.next_moment())
        if self._crons is not None:
            self._crons.look()

    async def _look_at_ends(self) -> None:
        async for portion in _portions(self._host.scheduler.awaited_runs):
            for run_id in self._journal.ended(portion):  # who waits for one that is not there any more is told so
                self._host.scheduler.run_ended(run_id)


async def _portions(run_ids: Iterable[str]) -> AsyncIterator[list[str]]:
    """Some runs at a time: others have a turn of the event loop after each portion."""
    left = iter(list(run_ids))
    while portion := list(islice(left, PORTION)):
        yield portion
        await asyncio.sleep(0)
