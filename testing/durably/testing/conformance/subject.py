"""The backend under test, seen by the suite: how to open it again on what it left behind, and how to hurt it."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.core import Backend, Function, InvokeError, Observer, Run
from durably.core.deltas import DeltaStore
from durably.core.errors import Signal
from durably.core.history import History
from durably.core.ids import new_id
from durably.core.steps import Point

__all__ = ["Kill", "MemorySubject", "Subject", "Where", "at", "heard", "keys", "nth"]

Where = Callable[[Point], bool]


class Kill(Signal):
    """The process is gone."""


class Subject(ABC):
    """One backend with storage of its own, empty at first. Each test gets a new one.

    A subclass says how to open the backend; the rest follows from the backend's own interface. The suite crashes a
    backend by raising a :class:`Kill` from its ``probe``: the backend must then write nothing more, end its tasks, and
    hand the signal to whoever waits for a result.

    Attributes:
        unit: Seconds. Sleeps and timeouts in the tests are multiples of it: long for virtual time, short for real
            time, but longer than it takes to open the backend again.
        patience: Real seconds one test may take before it counts as hung.
        keeps_deltas: Whether the pieces of streamed answers are kept without a store given as ``deltas=``.
        gaps: What this backend is known not to do: a test's name to the reason. A gap that passes is an error.
        rings: Whether a cron comes round when :meth:`ring` says so, and not with the time that passes.
        short_histories: Options of :meth:`open` under which a run goes on in a fresh history between two steps, or
            ``None`` for an engine whose runs have one history.
    """

    unit: float = 60.0
    patience: float = 20.0
    keeps_deltas: bool = False
    rings: bool = False
    gaps: Mapping[str, str] = {}
    short_histories: Mapping[str, Any] | None = None

    def __init__(self) -> None:
        self.token = new_id()[:8]

    @abstractmethod
    def open(
        self,
        functions: Iterable[Function[Any, Any]],
        *,
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str] = (),
        max_payload_bytes: int | None = None,
        observers: Iterable[Observer] = (),
        deltas: DeltaStore | None = None,
    ) -> AbstractAsyncContextManager[Backend]:
        """A running backend on the storage that earlier ones left behind, closed or crashed."""

    @abstractmethod
    def now(self, backend: Backend) -> float:
        """The time of this backend, in seconds since 1970."""

    async def expire(self, backend: Backend) -> None:
        """End the lease of a worker that is still alive, as a long pause of its process does."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to end a worker's lease: write expire()")

    async def ring(self, backend: Backend, function: Function[Any, Any], *, again: bool) -> bool:
        """Let the cron of a function come round, if it does not by itself (:attr:`rings`).

        Args:
            backend: A worker.
            function: The function.
            again: Whether to ring once more, if all that was rung has its run.

        Returns:
            Whether all that was rung has its run.
        """
        return True

    async def histories(self, run_id: str) -> int:
        """In how many histories a run has been, for a subject with :attr:`short_histories`."""
        raise NotImplementedError(f"{type(self).__name__} does not count the histories of a run: write histories()")

    def storage(self) -> bytes | None:
        """All that is stored, as bytes to be searched; ``None`` if they cannot be had."""
        return None

    # -- what the tests do with it

    def run_id(self, number: int = 0) -> str:
        """The id of a test's run; no other test uses it."""
        return f"run-{self.token}-{number}"

    async def run(
        self, *functions: Function[Any, Any], data: Any = None, number: int = 0, **options: Any
    ) -> tuple[Any, History]:
        """Run the first function to its end, or go on with it: its result and its records."""
        async with self.open(functions, **options) as backend:
            run = await backend.start(functions[0], data, run_id=self.run_id(number))
            return await run.result(), await run.history()

    async def fail(
        self, *functions: Function[Any, Any], data: Any = None, number: int = 0, **options: Any
    ) -> tuple[Exception, History]:
        """Like :meth:`run`, for a run that must fail: its error and its records."""
        async with self.open(functions, **options) as backend:
            run = await backend.start(functions[0], data, run_id=self.run_id(number))
            try:
                result = await run.result()
            except Exception as error:
                return error, await run.history()
            raise AssertionError(f"the run had to fail, and returned {result!r}")

    async def crash(
        self, *functions: Function[Any, Any], where: Where, data: Any = None, number: int = 0, **options: Any
    ) -> Point | None:
        """Run the first function and crash at the first point that fits; ``None`` if the run ended without it."""
        fired: list[Point] = []

        def probe(point: Point) -> None:
            if not fired and where(point):
                fired.append(point)
                raise Kill

        async with self.open(functions, **options) as backend:
            backend.probe = probe
            try:
                run = await backend.start(functions[0], data, run_id=self.run_id(number))
                await run.result()
            except InvokeError:
                pass  # the run itself failed, before the point or without it
            except Kill:
                if not fired:
                    raise
        return fired[0] if fired else None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to have happened, while no virtual time passes. A test's patience ends it."""
        while not condition():  # noqa: ASYNC110  # what is looked at may be changed by any code
            await asyncio.sleep(0.001)

    @contextmanager
    def still(self, longest: float | None = None) -> Iterator[None]:
        """While it lasts, looking at a run does not move the time on to the end of a wait.

        Args:
            longest: The longest wait, in seconds, that may pass all the same; left out, half a unit.
        """
        yield

    async def until_ended(self, run: Run[Any]) -> None:
        """Wait for the end of a run, however it ends."""
        await asyncio.wait([asyncio.ensure_future(run.ended())])
        await run.refresh()


def at(name: str, key: str = "", occurrence: int = 0) -> Where:
    """The passage through the point of this name and step key that comes after so many others."""
    seen = 0

    def fits(point: Point) -> bool:
        nonlocal seen
        if point.name != name or point.key != key:
            return False
        seen += 1
        return seen == occurrence + 1

    return fits


def nth(number: int) -> Where:
    """The point that is passed after so many others."""
    seen = 0

    def count(point: Point) -> bool:
        nonlocal seen
        seen += 1
        return seen == number + 1

    return count


def keys(history: History) -> list[str]:
    """The keys of the settled steps, in the order of their commits."""
    return [record.key for record in history.steps()]


@contextmanager
def heard() -> Iterator[list[str]]:
    """The log lines of a while, as they would be printed."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    ear, root = Ear(), logging.getLogger()
    root.addHandler(ear)
    try:
        yield lines
    finally:
        root.removeHandler(ear)


class MemorySubject(Subject):
    """The in-memory replayer, or a variant of it.

    Args:
        backend: The class to open.
        options: Further arguments for it.
    """

    patience = 10.0
    keeps_deltas = True
    backend: type[MemoryBackend]

    def __init__(self, backend: type[MemoryBackend] = MemoryBackend, **options: Any) -> None:
        super().__init__()
        self.backend = backend
        self.options = options
        self.journal: MemoryJournal | None = None
        self.time: float | None = None

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        clock = VirtualClock() if self.time is None else VirtualClock(self.time)
        opened = self.backend(list(functions), journal=self.journal, clock=clock, **self.options, **options)
        opened.drain_timeout = 0.5
        self.journal = opened.journal
        try:
            async with opened:
                yield opened
        finally:
            self.time = max(clock.now(), self.time or 0.0)

    def now(self, backend: Backend) -> float:
        assert isinstance(backend, MemoryBackend)
        return backend.clock.now()

    async def expire(self, backend: Backend) -> None:
        assert isinstance(backend, MemoryBackend)
        backend.lease.lose()

    def storage(self) -> bytes | None:
        return repr(vars(self.journal)).encode() if self.journal is not None else b""
