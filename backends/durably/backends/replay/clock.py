"""Time: the wall clock, and a virtual one that costs nothing to wait for."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Alarm", "Clock", "SystemClock", "Timer", "VirtualClock"]

LONGEST_NAP = 60.0
"""Seconds after which the wall clock is looked at again, since it may have been set."""


class Timer:
    """Something that will be called at a moment, unless it is cancelled first.

    A clock counts it among its armed timers, unless it is one in the background.
    """

    def __init__(self, clock: Clock, when: float, callback: Callable[[], None], background: bool = False) -> None:
        self.when = when
        self.cancelled = False
        self._clock = clock
        self._callback = callback
        self.handle: asyncio.TimerHandle | None = None
        self._counts = int(not background)
        clock.armed += self._counts

    def fire(self) -> None:
        """Call back, once."""
        if not self.cancelled:
            self.cancel()
            self._callback()

    def cancel(self) -> None:
        """Never call back."""
        if not self.cancelled:
            self.cancelled = True
            self._clock.armed -= self._counts
            if self.handle is not None:
                self.handle.cancel()
                self.handle = None


class Clock(Protocol):
    """Where an engine gets its time from.

    Attributes:
        armed: How many timers are waiting, without those in the background.
    """

    armed: int

    def now(self) -> float:
        """Seconds since 1970."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], *, background: bool = False) -> Timer:
        """Call back at a moment, never before it; in the background: nobody who waits for quiet waits for it."""
        ...

    def advance(self) -> bool:
        """Jump to the next timer and fire it; ``False`` if there is none, or if this clock cannot jump."""
        ...


class SystemClock:
    """The wall clock."""

    def __init__(self) -> None:
        self.armed = 0

    now = staticmethod(time.time)

    def call_at(self, when: float, callback: Callable[[], None], *, background: bool = False) -> Timer:
        timer = Timer(self, when, callback, background)
        self._wait(timer)
        return timer

    def _wait(self, timer: Timer) -> None:
        rest = max(0.0, min(timer.when - self.now(), LONGEST_NAP))
        timer.handle = asyncio.get_running_loop().call_later(rest, self._look, timer)

    def _look(self, timer: Timer) -> None:
        if self.now() >= timer.when:
            timer.fire()
        else:
            self._wait(timer)

    def advance(self) -> bool:
        return False


class VirtualClock:
    """A clock that stands still while anything runs, and jumps when everything waits.

    Args:
        start: Seconds since 1970; left out, the first moment of 2026 in UTC.
    """

    def __init__(self, start: float = 1767225600.0) -> None:
        self.armed = 0
        self._now = start
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None], *, background: bool = False) -> Timer:
        self._count += 1
        timer = Timer(self, when, callback, background)
        heapq.heappush(self._heap, (when, self._count, timer))
        return timer

    def advance(self) -> bool:
        while self._heap:
            when, _, timer = heapq.heappop(self._heap)
            if not timer.cancelled:
                self._now = max(self._now, when)
                timer.fire()
                return True
        return False

    def shift(self, seconds: float) -> None:
        """Set the clock forward or back, as an administrator would; fires nothing."""
        self._now += seconds


class Alarm:
    """One timer, for the earliest of the moments it is set to.

    Args:
        clock: Where time comes from.
        callback: Called at that moment.
    """

    def __init__(self, clock: Clock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._callback = callback
        self._timer: Timer | None = None

    def set(self, due: float | None) -> None:
        """Call back at a moment, unless it is set to an earlier one; ``None``: not at all."""
        timer = self._timer
        if timer is not None and not timer.cancelled and due is not None and timer.when <= due:
            return
        self.clear()
        if due is not None:
            self._timer = self._clock.call_at(due, self._callback)

    def clear(self) -> None:
        """Call back no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
