"""For how long single callbacks hold an event loop, in CPU time: what other processes do counts for nothing."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LoopWatch", "loop_watch"]

RUN = "_run"
"""The method of a handle that calls back."""

LONG = 0.005
"""From so many seconds on, a callback is listed."""


class LoopWatch:
    """What callbacks of event loops took, without the garbage that was collected meanwhile.

    Attributes:
        count: How many there were.
        longest: The CPU time of the longest of them, in seconds.
        long: The names of those that took longer than `LONG`, and how often each did.
        garbage: The CPU time of the longest collection of garbage.
    """

    def __init__(self) -> None:
        self.count = 0
        self.longest = self.garbage = 0.0
        self.long: Counter[str] = Counter()
        self._collected = self._collecting = 0.0

    def __str__(self) -> str:
        names = ", ".join(f"{count} x {name}" for name, count in self.long.most_common(4))
        return (
            f"longest of {self.count:,} callbacks {self.longest * 1e3:.1f} ms of CPU; above {LONG * 1e3:.0f} ms: "
            f"{names or 'none'}; garbage collected in {self.garbage * 1e3:.0f} ms at most"
        )

    def call(self, handle: asyncio.Handle) -> None:
        """Call back, and note what that takes."""
        began, self._collected = time.thread_time(), 0.0
        ORIGINAL(handle)
        seconds = time.thread_time() - began - self._collected
        self.count += 1
        self.longest = max(seconds, self.longest)
        if seconds > LONG:
            self.long[_name(handle)] += 1

    def collect(self, phase: str, _: dict[str, int]) -> None:
        """Garbage is being collected, or has been."""
        if phase == "start":
            self._collecting = time.thread_time()
            return
        seconds = time.thread_time() - self._collecting
        self._collected += seconds
        self.garbage = max(self.garbage, seconds)


ORIGINAL = asyncio.Handle._run


def _name(handle: asyncio.Handle) -> str:
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    called = task.get_coro() if isinstance(task, asyncio.Task) else callback
    return getattr(called, "__qualname__", "a callback")


@contextmanager
def loop_watch() -> Iterator[LoopWatch]:
    """Watch what is called during a block."""
    watch = LoopWatch()
    setattr(asyncio.Handle, RUN, lambda handle: watch.call(handle))
    gc.callbacks.append(watch.collect)
    try:
        yield watch
    finally:
        setattr(asyncio.Handle, RUN, ORIGINAL)
        gc.callbacks.remove(watch.collect)
