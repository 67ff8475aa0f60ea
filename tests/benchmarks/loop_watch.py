"""For how long single callbacks hold an event loop, in CPU time: what other processes do counts for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LoopWatch", "loop_watch"]

RUN = "_run"
"""The method of a handle that calls back."""


class LoopWatch:
    """What callbacks of event loops took.

    Attributes:
        count: How many there were.
        longest: The CPU time of the longest of them, in seconds, and its name.
        long: How many took more than 5 ms.
    """

    def __init__(self) -> None:
        self.count = self.long = 0
        self.longest = 0.0, ""

    def __str__(self) -> str:
        seconds, name = self.longest
        return f"longest callback {seconds * 1e3:.1f} ms ({name}), {self.long:,} of {self.count:,} above 5 ms"

    def note(self, handle: asyncio.Handle, seconds: float) -> None:
        """One more was called."""
        self.count += 1
        self.long += seconds > 0.005
        if seconds > self.longest[0]:
            self.longest = seconds, _name(handle)


def _name(handle: asyncio.Handle) -> str:
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return getattr(task.get_coro(), "__qualname__", "a task")
    return getattr(callback, "__qualname__", repr(callback))


@contextmanager
def loop_watch() -> Iterator[LoopWatch]:
    """Watch what is called during a block."""
    watch, run = LoopWatch(), asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        watch.note(handle, time.thread_time() - began)

    setattr(asyncio.Handle, RUN, timed)
    try:
        yield watch
    finally:
        setattr(asyncio.Handle, RUN, run)
