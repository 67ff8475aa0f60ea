"""A process that works until it is told to stop: a backend, from its start to its last body, under the signals.

Owns: the signals, and the order of things. Does not own: what a backend does to stop (the backends).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from durably.core.backend import Backend
from durably.core.durations import Duration, duration_seconds

__all__ = ["run_worker", "stop_signals"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run_worker(backend: Backend, *, drain_timeout: Duration | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain it and stop.

    To drain, it takes no new run, releases every run that only waits, and waits for running bodies. Bodies that do not
    end in time are interrupted and run again on another worker. A second signal ends the process at once: other workers
    take over its runs as after a crash.

    Args:
        backend: The backend; it is not running yet.
        drain_timeout: How long to wait for bodies after the signal. Default: the backend's.

    Raises:
        RuntimeError: If it is not called in the main thread, because only that one receives signals.
        ValueError: If the timeout is no duration, or the backend has no functions.
    """
    if drain_timeout is not None:
        backend.drain_timeout = duration_seconds(drain_timeout, "run_worker: drain_timeout")
    if not backend.functions:
        raise ValueError("a worker needs functions=[...]")
    with stop_signals() as stop:
        async with backend:
            await backend.work_until(stop)


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Set an event when the process is told to stop, instead of dying at once. The next signal ends the process.

    Raises:
        RuntimeError: If it is not called in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_worker() listens to signals, which only the main thread hears: call it there")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def heard(number: int, frame: FrameType | None) -> None:
        # From here on the operating system ends the process, whatever the interpreter is at.
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        loop.call_soon_threadsafe(stop.set)

    # Not the loop's own handlers: they wait for a loop that a body may hold up.
    before = [(each, signal.signal(each, heard)) for each in SIGNALS]
    try:
        yield stop
    finally:
        for each, handler in before:
            signal.signal(each, handler)
