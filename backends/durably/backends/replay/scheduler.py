"""Who waits for what, and when time may pass. Owns no run: it only knows who is to be woken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

from durably.backends.replay.clock import Clock
from durably.backends.replay.host import Waiting
from durably.backends.replay.journal import Journal, RunRow
from durably.core import (
    Backend,
    Event,
    Function,
)
from durably.core.backend import RunStatus, RunView

__all__ = ["Waits"]

T = TypeVar("T")


class Waits(Backend):
    """The part of the replay engine that wakes: at an event, at the end of a run, or when nothing else can happen.

    Args:
        functions: See :class:`~durably.backends.replay.backend.ReplayBackend`, as for the others.
        journal: Where runs are kept.
        clock: Where time comes from.
        options: See :class:`~durably.core.Backend`.

    Attributes:
        active: How many runs and branches are doing something; while it is not 0 a virtual clock stands still.
    """

    def __init__(
        self, functions: Sequence[Function[Any, Any]], *, journal: Journal, clock: Clock, **options: Any
    ) -> None:
        super().__init__(functions, **options)
        self.journal = journal
        self.clock = clock
        self.active = 0
        self._watchers = 0
        self._crash: BaseException | None = None
        self._waiting: set[Waiting] = set()
        self._ends: dict[str, set[asyncio.Future[Any]]] = {}
        self._idle: set[asyncio.Future[Any]] = set()

    def wake(self, future: asyncio.Future[Any], value: Any) -> None:
        """Let whoever waits for a future go on; it counts as active from now, not from when it runs."""
        if not future.done():
            self.active += 1
            future.set_result(value)

    async def wait(self, future: asyncio.Future[T], due: float | None) -> T | None:
        """Wait for a future or a moment, whichever comes first, without counting as active: time may pass."""
        timer = None if due is None else self.clock.call_at(due, lambda: self.wake(future, None))
        self.active -= 1
        self.rest()
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            if future.cancelled():
                self.active += 1

    def rest(self) -> None:
        """Called when something stopped being active: time may pass."""
        if self.active == 0 and (self._watchers or self._idle):
            asyncio.get_running_loop().call_soon(self._advance)

    def find_event(self, waiting: Waiting) -> Event | None:
        """The first event in the log that a run waits for."""
        for received in self.journal.events_since(waiting.cursor, waiting.name):
            if waiting.wants(received.event, received.seq, received.at):
                return received.event
        return None

    def wait_for_event(self, waiting: Waiting) -> None:
        """Wake it when its event arrives."""
        self._waiting.add(waiting)

    def stop_waiting(self, waiting: Waiting) -> None:
        """Forget it."""
        self._waiting.discard(waiting)

    def find_run(self, run_id: str) -> RunView | None:
        """How a run stands, or ``None``."""
        row = self.journal.get(run_id)
        return None if row is None else self._view_of(row)

    def wait_for_run(self, run_id: str) -> asyncio.Future[Any]:
        """A future that is woken when the run ends."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ends = self._ends.setdefault(run_id, set())
        ends.add(future)
        future.add_done_callback(lambda _: self._unlist(run_id, future))
        return future

    def _unlist(self, run_id: str, future: asyncio.Future[Any]) -> None:
        ends = self._ends.get(run_id)
        if ends is not None:
            ends.discard(future)
            if not ends:
                del self._ends[run_id]

    def _ended(self, run_id: str) -> None:
        for future in self._ends.pop(run_id, ()):
            self.wake(future, None)

    def _advance(self) -> None:
        """Nothing is active: jump to the next timer, where the clock can jump."""
        while self.active == 0 and (self._watchers or self._idle) and self._crash is None:
            if not self.clock.advance():
                if self.clock.armed == 0:
                    for future in self._idle:
                        self.wake(future, None)
                return

    async def _outside(self, add: Any, remove: Any) -> None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        add(future)
        self._watchers += 1
        self.rest()
        try:
            await future
            self.active -= 1  # the waker counted it; this waiter is no part of the engine
        finally:
            self._watchers -= 1
            remove(future)

    def _view_of(self, row: RunRow) -> RunView:
        last = self.journal.last_record(row.id) if row.status.final else None
        return RunView(
            id=row.id,
            function=row.function,
            status=row.status,
            output=last.output if last is not None and row.status is RunStatus.COMPLETED else None,
            error=last.error if last is not None else None,
            created_at=row.created_at,
            ended_at=last.at if last is not None else 0.0,
            parent=row.parent,
        )
