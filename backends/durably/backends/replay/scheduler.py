"""When the code of runs goes on: what waits for which future, and when time may pass. Owns no run and no record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from durably.backends.replay.clock import Clock
from durably.core.errors import CancelSignal, Signal

__all__ = ["RunScheduler", "Scheduler", "Wait"]

T = TypeVar("T")
Future = asyncio.Future[Any]


class Wait(NamedTuple):
    """What one branch of a run waits for.

    Attributes:
        due: When the wait is over at the latest, in seconds since 1970, or ``None``.
        again: Waits for the same once more, without the code of the run: a future. ``None``: only the code can.
        recorded: Whether the records of the run say all that is to be known of it.
    """

    due: float | None
    again: Callable[[], Future] | None
    recorded: Callable[[], bool] = lambda: True


class Scheduler:
    """Wakes what waits: at a moment, at the end of a run, or when nothing else can happen.

    Args:
        clock: Where time comes from.

    Attributes:
        active: How many runs and branches are doing something; while it is not 0 a virtual clock stands still.
        run_rests: Called when a run begins to wait.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.active = 0
        self.run_rests: Callable[[], None] = lambda: None
        self._watchers = 0
        self._stopped = False
        self._ends: dict[str, set[Future]] = {}
        self._idle: set[Future] = set()

    # -- inside: the code of runs

    def future(self) -> Future:
        """A future that only :meth:`wake` ends."""
        return asyncio.get_running_loop().create_future()

    def wake(self, future: Future, value: Any = None) -> None:
        """Let whoever waits for a future go on."""
        if not future.done():
            # Counted from now, not from when it runs: in between, a virtual clock must not jump.
            self.active += 1
            future.set_result(value)

    async def wait(self, future: asyncio.Future[T], due: float | None) -> T | None:
        """Wait for a future or a moment, whichever comes first, without counting as active: time may pass."""
        timer = None if due is None else self.clock.call_at(due, lambda: self.wake(future))
        self.ended()
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            if future.cancelled():  # nobody woke it, so nobody counted it as active again
                self.active += 1

    def began(self, count: int = 1) -> None:
        """Count more runs or branches as active."""
        self.active += count

    def ended(self) -> None:
        """Count one run or branch less as active."""
        self.active -= 1
        self.rest()

    def rest(self) -> None:
        """Note that something stopped being active: time may pass."""
        if self.active == 0 and (self._watchers or self._idle):
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        """Jump to the next timer, where the clock can jump; with none left, tell those who wait for quiet."""
        while self.active == 0 and (self._watchers or self._idle) and not self._stopped:
            if self.clock.armed == 0 and self._idle:  # a timer in the background may be left: a cron has no end
                idle, self._idle = self._idle, set()  # who was cancelled meanwhile is woken no more
                for future in idle:
                    self.wake(future)
            elif not self.clock.advance():
                return

    # -- the ends of runs

    def end_of(self, run_id: str) -> Future:
        """A future that is woken when a run ends."""
        future: Future = asyncio.get_running_loop().create_future()
        self._ends.setdefault(run_id, set()).add(future)
        future.add_done_callback(lambda _: self._unlist(run_id, future))
        return future

    def _unlist(self, run_id: str, future: Future) -> None:
        ends = self._ends.get(run_id)
        if ends is not None:
            ends.discard(future)
            if not ends:
                del self._ends[run_id]

    @property
    def awaited_runs(self) -> list[str]:
        """The runs whose end somebody waits for."""
        return list(self._ends)

    def run_ended(self, run_id: str) -> None:
        """Wake those who wait for the end of a run."""
        for future in self._ends.pop(run_id, ()):
            self.wake(future)

    # -- outside: programs that wait for a result

    async def watch_end(self, run_id: str) -> None:
        """Wait for the end of a run from outside: meanwhile a virtual clock may jump."""
        await self._watch(self.end_of(run_id))

    async def watch_for(self, run_id: str, seconds: float) -> None:
        """Wait from outside for the end of a run, or for some seconds of real time; a virtual clock may jump."""
        future = self.end_of(run_id)
        self._watchers += 1
        self.rest()
        try:
            await asyncio.wait({future}, timeout=seconds)
            if future.done():
                future.result()
        finally:
            self._watchers -= 1
            if not future.cancel() and future.exception() is None:
                self.active -= 1  # as for `_watch`

    async def watch_quiet(self) -> None:
        """Wait from outside until nothing runs, sleeps or is scheduled any more."""
        future: Future = asyncio.get_running_loop().create_future()
        self._idle.add(future)
        try:
            await self._watch(future)
        finally:
            self._idle.discard(future)

    async def _watch(self, future: Future) -> None:
        self._watchers += 1
        self.rest()
        try:
            await future
        finally:
            self._watchers -= 1
            if not future.cancelled() and future.exception() is None:
                self.active -= (
                    1  # the waker counted it; this waiter is no part of the engine, and may be cancelled since
                )
            self.rest()

    def stop(self, signal: BaseException) -> None:
        """Let no time pass any more, and hand a signal to everybody who waits from outside or for a run."""
        self._stopped = True
        for future in [*(each for ends in self._ends.values() for each in ends), *self._idle]:
            if not future.done():
                future.set_exception(signal)


class RunScheduler:
    """The scheduler as one pass of a run uses it: all its waits end when the pass is interrupted.

    Args:
        scheduler: The worker's.

    Attributes:
        signal: What the pass is to unwind with at its next step boundary, or ``None``.
        cut_off: Whether its task is cancelled because it did not end in time.
        rests: Called when all branches of the run have begun to wait.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.signal: type[Signal] | None = None
        self.cut_off = False
        self._parked: dict[Future, Wait] = {}
        self.rests: Callable[[], None] = lambda: None
        self._branches = 1
        self._resting = 0

    def interrupt(self, signal: type[Signal]) -> None:
        """Unwind the code at its next step boundary; what waits now is woken for that."""
        if self.signal is not CancelSignal:  # that is final: a worker that stops must not take it for a suspension
            self.signal = signal
        for future in list(self._parked):
            self.scheduler.wake(future)

    @property
    def resting(self) -> bool:
        """Whether all its branches wait for something that is none of this worker's doing."""
        return self._resting >= self._branches

    def began(self, count: int) -> None:
        """Count more branches as active."""
        self._branches += count
        self.scheduler.began(count)

    def ended(self) -> None:
        """Count one branch less as active."""
        self._branches -= 1
        if self.signal is None:  # else the others are on their way out as well
            self._rest()
        self.scheduler.ended()

    def waits(self) -> list[Wait] | None:
        """What the branches of a run wait for; ``None`` if it does not rest, or only its code can wait for that."""
        waits, now = list(self._parked.values()), self.scheduler.clock.now()
        goes_on = self.signal is not None or not self.resting or any(future.done() for future in self._parked)
        goes_on = goes_on or any(wait.due is not None and wait.due <= now for wait in waits)
        return None if goes_on or any(wait.again is None for wait in waits) else waits

    def _rest(self) -> None:
        """Say so if all branches wait now."""
        if self.resting:
            self.rests()
            self.scheduler.run_rests()

    def future(self) -> Future:
        """A future to park on."""
        return self.scheduler.future()

    async def park(
        self,
        future: asyncio.Future[T],
        due: float | None,
        *,
        rest: bool = True,
        again: Callable[[], Future] | None = None,
        recorded: Callable[[], bool] = lambda: True,
    ) -> T | None:
        """Wait for a future or a moment, whichever comes first; a signal for the pass ends it.

        Args:
            future: What to wait for.
            due: Seconds since 1970, or ``None``.
            rest: Whether the run rests meanwhile, and leaves its place to others where a worker drives only so many.
            again: See :class:`Wait`.
            recorded: See :class:`Wait`.
        """
        if self.signal is not None:  # since a record was being written: what would wake it has been
            future.cancel()
            raise self.signal
        value = await self._wait(future, Wait(due, again, recorded), rest)
        if self.signal is not None:
            raise self.signal
        return value

    async def sleep_until(self, due: float) -> None:
        """Wait for a moment, in seconds since 1970; a signal for the pass ends it."""
        while self.scheduler.clock.now() < due:
            await self.park(self.future(), due, again=self.future)

    async def pause(self, seconds: float) -> None:
        """Let time pass; an interruption shortens it, and is not raised here. The run does not rest: it is at work."""
        await self._wait(self.future(), Wait(self.scheduler.clock.now() + seconds, None), rest=False)

    async def _wait(self, future: asyncio.Future[T], wait: Wait, rest: bool) -> T | None:
        self._parked[future] = wait
        self._resting += rest
        self._rest()
        try:
            return await self.scheduler.wait(future, wait.due)
        finally:
            self._resting -= rest
            del self._parked[future]
