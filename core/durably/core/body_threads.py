"""Threads for sync bodies: the engine's own, so that a body that hangs holds up nobody else.

The event loop's default pool is left to the program. A thread whose body outlived its timeout cannot be stopped; it is
abandoned, and another one may run in its place, up to a bound.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["BodyThread", "BodyThreads", "Outcome"]

logger = logging.getLogger("durably")

LIMIT = min(32, (os.cpu_count() or 1) + 4)
"""How many sync bodies run at once: as many as in asyncio's own pool."""

SPARE = 64
"""How many threads may be abandoned before an abandoned one is no longer replaced."""

LOOK_SECONDS = 1.0
"""How often a body that waits for a thread looks whether any is left to be waited for."""


@dataclass(slots=True)
class Outcome:
    """What a body came to: its value, or what it raised.

    An exception is handed over as a value, since a future does not take every one: ``StopIteration`` is refused.
    """

    value: Any = None
    error: BaseException | None = None


class BodyThreads:
    """Runs sync bodies, each in a thread of its own.

    Args:
        limit: How many run at once; the others wait.
        spare: How many threads may be abandoned before an abandoned one is no longer replaced.

    Attributes:
        abandoned: How many threads run a body that outlived its timeout.
        stuck: How many of these were not replaced.
    """

    def __init__(self, limit: int = LIMIT, spare: int = SPARE) -> None:
        self.limit = limit
        self.spare = spare
        self.abandoned = 0
        self.stuck = 0
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def start(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        before_body: Callable[[], Awaitable[None] | None] | None = None,
    ) -> BodyThread:
        """Begin to run a body, as soon as a thread is free.

        Args:
            name: The step, for the thread's name.
            fn: The body.
            args: Its arguments.
            before_body: Called when a thread is free; what it returns is awaited. It raises if the body may not begin.

        Raises:
            RuntimeError: If every thread is held by a body that outlived its timeout.
        """
        loop = asyncio.get_running_loop()
        slots = self._slots.setdefault(loop, asyncio.Semaphore(self.limit))
        while True:
            if self.stuck >= self.limit:
                raise RuntimeError(
                    f"no thread is left for sync bodies: {self.abandoned} of them outlived their timeouts and never "
                    "ended. Restart this worker, and give what these bodies wait for a timeout of its own"
                )
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(slots.acquire(), LOOK_SECONDS)
                break
        try:
            if before_body is not None and (pause := before_body()) is not None:
                await pause
            return BodyThread(self, slots, loop, name, fn, args)
        except BaseException:
            slots.release()
            raise


class BodyThread:
    """One body in its thread.

    Attributes:
        done: A future of what the body comes to.
    """

    def __init__(
        self,
        threads: BodyThreads,
        slots: asyncio.Semaphore,
        loop: asyncio.AbstractEventLoop,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self.done: asyncio.Future[Outcome] = loop.create_future()
        self._threads = threads
        self._slots = slots
        self._loop = loop
        self._name = name
        self._abandoned = self._replaced = False
        # A daemon: a body that never ends must not keep the process from ending.
        call = (copy_context().run, fn, *args)
        threading.Thread(target=self._work, args=call, name=f"durably-{name}", daemon=True).start()

    def abandon(self) -> None:
        """Wait for the body no longer; what it returns is dropped."""
        if self._abandoned or self.done.done():
            return
        threads = self._threads
        self._abandoned = True
        self._replaced = threads.abandoned - threads.stuck < threads.spare
        threads.abandoned += 1
        if self._replaced:
            self._slots.release()
        else:
            threads.stuck += 1
        logger.warning(
            "the sync body of step %r goes on in its thread, and nobody waits for it; %d threads are abandoned so, "
            "%d of them not replaced",
            self._name,
            threads.abandoned,
            threads.stuck,
        )

    def _work(self, run: Callable[..., Any], *call: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the worker has ended
            self._loop.call_soon_threadsafe(self._end, _outcome(run, *call))

    def _end(self, outcome: Outcome) -> None:
        if self._abandoned:
            self._threads.abandoned -= 1
            self._threads.stuck -= not self._replaced
        if not self._replaced:
            self._slots.release()
        if not self.done.done():
            self.done.set_result(outcome)


def _outcome(run: Callable[..., Any], *call: Any) -> Outcome:
    try:
        return Outcome(value=run(*call))
    except BaseException as error:  # also SystemExit: it must end this attempt, not this thread's process
        return Outcome(error=error)
