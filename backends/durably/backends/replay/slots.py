"""How many bodies a worker runs at once: the others wait for their turn, in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from durably.backends.replay.scheduler import Future, RunScheduler, Scheduler

__all__ = ["BodySlots", "hand_over", "wait_for_turn"]

HANDED_OVER = object()


async def wait_for_turn(run: RunScheduler, turn: Future, give_back: Callable[[], None]) -> None:
    """Wait until a place is handed over; a signal for the run ends the wait.

    Args:
        run: Who waits.
        turn: What :func:`hand_over` ends.
        give_back: Called if the place is not taken although it was handed over.
    """
    try:
        await run.park(turn, None, rest=False)
    except BaseException:
        # Interrupted, which wakes it too: the place may have been handed over at the same moment.
        if turn.done() and not turn.cancelled() and turn.result() is HANDED_OVER:
            give_back()
        raise


def hand_over(scheduler: Scheduler, turn: Future) -> None:
    """Let whoever waits for this turn have the place."""
    scheduler.wake(turn, HANDED_OVER)


class BodySlots:
    """The places for bodies.

    Args:
        limit: How many there are.
        scheduler: Wakes the runs whose turn has come.
    """

    def __init__(self, limit: int, scheduler: Scheduler) -> None:
        self._limit = limit
        self._scheduler = scheduler
        self._taken = 0
        self._queue: deque[Future] = deque()

    @asynccontextmanager
    async def place(self, run: RunScheduler) -> AsyncIterator[None]:
        """A place for one body, while a block lasts; a signal for the run ends the wait for it."""
        await self._take(run)
        try:
            yield
        finally:
            self._leave()

    async def _take(self, run: RunScheduler) -> None:
        if self._taken < self._limit:
            self._taken += 1
            return
        turn = run.future()
        self._queue.append(turn)
        await wait_for_turn(run, turn, self._leave)

    def _leave(self) -> None:
        """Hand the place to the next in the queue that still waits, or free it."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                hand_over(self._scheduler, turn)
                return
        self._taken -= 1
