"""The bodies of one run that crashed: who has been cut off often runs alone, so that the next crash is put down to it.

Owns: which bodies of the run run at the same time. Does not own: what a crash is put down to (``crash_watch.py``,
``crashes.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from durably.backends.replay.crash_watch import CrashWatch
from durably.backends.replay.scheduler import Future, RunScheduler
from durably.backends.replay.slots import hand_over, wait_for_turn

__all__ = ["LoneBodies"]


class LoneBodies:
    """The bodies of a run, in one pass over its code. They begin in the order in which they come.

    Args:
        run: How the pass waits.
        watch: Is told who runs alone.
    """

    def __init__(self, run: RunScheduler, watch: CrashWatch) -> None:
        self._run = run
        self._watch = watch
        self._running = 0
        self._taken = False
        self._queue: deque[tuple[Future, bool]] = deque()

    @asynccontextmanager
    async def place(self, key: str, *, alone: bool) -> AsyncIterator[None]:
        """A place for one body, while a block lasts; a signal for the run ends the wait for it.

        Args:
            key: The step key.
            alone: Whether no other body may run meanwhile.
        """
        await self._enter(alone)
        try:
            if alone:
                self._watch.alone = key
            yield
            if alone:
                self._watch.lone_body_ended()
        finally:
            self._leave()

    async def _enter(self, alone: bool) -> None:
        if not self._queue and self._fits(alone):
            self._take(alone)
            return
        turn = self._run.future()
        self._queue.append((turn, alone))
        await wait_for_turn(self._run, turn, self._leave)

    def _fits(self, alone: bool) -> bool:
        return not self._running if alone else not self._taken

    def _take(self, alone: bool) -> None:
        self._running += 1
        self._taken = alone

    def _leave(self) -> None:
        self._running -= 1
        self._taken, self._watch.alone = False, ""  # beside one that runs alone, no other leaves
        while self._queue and (self._queue[0][0].done() or self._fits(self._queue[0][1])):
            turn, next_alone = self._queue.popleft()
            if not turn.done():
                self._take(next_alone)
                hand_over(self._run.scheduler, turn)
