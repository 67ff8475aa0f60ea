"""Virtual time: nothing waits, and it moves only when told to."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["Timer", "Timers"]


class Timer:
    """Something to do at a moment.

    Attributes:
        due: Seconds since 1970.
        act: What to do, or ``None`` once it was done or called off.
    """

    def __init__(self, due: float, act: Callable[[], None]) -> None:
        self.due = due
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        """Do not do it."""
        self.act = None


class Timers:
    """The time and what is to be done later.

    Args:
        start: Seconds since 1970.
    """

    def __init__(self, start: float) -> None:
        self.time = start
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def at(self, due: float, act: Callable[[], None]) -> Timer:
        """Do something at a moment; never right now, even if the moment is past."""
        timer = Timer(due, act)
        heapq.heappush(self._heap, (due, next(self._order), timer))
        return timer

    def due(self) -> float | None:
        """When the next thing is to be done."""
        while self._heap and self._heap[0][2].act is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def step(self) -> bool:
        """Move to the next thing to be done, and do it; ``False`` if there is none."""
        due = self.due()
        if due is None:
            return False
        _, _, timer = heapq.heappop(self._heap)
        self.time = max(self.time, due)
        act, timer.act = timer.act, None
        if act is not None:
            act()
        return True
