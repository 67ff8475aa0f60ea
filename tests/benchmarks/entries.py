"""Which files of the library execution enters, on all threads.

An entry is a new Python frame of a library file whose nearest library frame below is of another file, or which has none
below: a callback, a thread. A task is called from where its coroutine was made. Frames of the standard library,
pydantic and the engines' own SDKs are looked through; coroutines and generators that go on are not counted again.
"""

from __future__ import annotations

import asyncio
import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from durably.backends.replay import group_commit

__all__ = ["ROOT", "Recorder", "profiled", "quick_commits"]

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = tuple(f"{ROOT / part}/" for part in ("core", "backends", "providers"))


@contextmanager
def quick_commits() -> Iterator[None]:
    """Let each commit of a single run count as quick: on a busy machine the event loop would not wait for some."""
    before, group_commit.AT_ONCE = group_commit.AT_ONCE, 60.0
    try:
        yield
    finally:
        group_commit.AT_ONCE = before


@contextmanager
def profiled(on_event: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Have a profiler told of each call in this thread, and in those that are started from now on."""
    before = sys.getprofile()
    threading.setprofile(on_event)
    sys.setprofile(on_event)
    try:
        yield
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


def calls_in(act: Callable[[], Any]) -> int:
    """How many calls of functions, of Python's and of C's, an act takes."""
    count = 0

    def note(frame: FrameType, what: str, argument: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    with profiled(note):
        act()
    return count


@cache
def library_file(path: str) -> str | None:
    """A file of the library, relative to the checkout, or ``None`` if it is another."""
    return path[len(str(ROOT)) + 1 :] if path.startswith(LIBRARY) else None


@cache
def first_instruction(code: CodeType) -> int:
    """Where a frame of this code is when it is called; a coroutine or a generator that goes on is elsewhere."""
    return next(each.offset for each in dis.get_instructions(code) if each.opname == "RESUME" and each.arg == 0)


@dataclass
class Recorder:
    """Notes each entry while a step is traced.

    Attributes:
        state: ``idle``, then ``armed`` for the next step, ``stepping`` during it and ``done`` after it.
        entered: The files, one for each entry.
    """

    state: str = "idle"
    entered: list[str] = field(default_factory=list)
    _noting: bool = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Look on in this thread, and in those that are started from now on."""
        depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(1)
        try:
            with profiled(self._on_event):
                yield
        finally:
            sys.set_coroutine_origin_tracking_depth(depth)

    def arm(self) -> None:
        """Trace the next step."""
        self.state, self._noting = "armed", False

    def request(self) -> None:
        """A request of the engine begins; it may be the one that runs the step."""
        if self.state == "armed":
            self.entered, self._noting = [], True

    def begin(self) -> None:
        """The step is called; not for the first time, if the code is replayed."""
        if self.state == "armed":
            if not self._noting:
                self.request()
            self.state = "stepping"

    def end(self) -> None:
        """The code has the step's value."""
        if self.state == "stepping":
            self.state, self._noting = "done", False

    def _on_event(self, frame: FrameType, event: str, arg: Any) -> None:
        if not self._noting or event != "call":
            return
        file = library_file(frame.f_code.co_filename)
        if file is None or frame.f_lasti != first_instruction(frame.f_code):
            return
        below = frame.f_back
        while below is not None and library_file(below.f_code.co_filename) is None:
            below = below.f_back
        caller = maker(frame) if below is None else library_file(below.f_code.co_filename)
        if caller != file:
            self.entered.append(file)


def maker(frame: FrameType) -> str | None:
    """The file of the library that made the coroutine of a task, if this frame is its first."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without an event loop
        return None
    coroutine: Any = None if task is None else task.get_coro()
    if getattr(coroutine, "cr_frame", None) is not frame or not coroutine.cr_origin:
        return None
    return library_file(coroutine.cr_origin[0][0])
