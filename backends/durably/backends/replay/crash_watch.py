"""How far a run comes that crashes again and again, written down so that the next crash is put down to the right code.

Nothing is written of a run that has not crashed twice in one place, nor once it has come further.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from durably.backends.replay.clock import Clock, Timer
from durably.backends.replay.crashes import SUSPECTED
from durably.backends.replay.journal import Journal, nothing
from durably.backends.replay.journal_types import RunRow
from durably.core import Function
from durably.core.errors import CrashLoopError, JournalError
from durably.core.history import StepRecord

__all__ = ["CrashWatch", "Trial"]

logger = logging.getLogger("durably")

TRIAL_SECONDS = 60.0
"""How long other suspected runs wait for one that neither ends nor comes further."""


class Notes(Protocol):
    """How notes are written: the log of a worker."""

    journal: Journal

    def write(
        self,
        change: Callable[[], None],
        then: Callable[[None], None],
        otherwise: Callable[[BaseException], None],
    ) -> asyncio.Future[None]: ...


class CrashWatch:
    """What one pass of a run's code has to do with the crashes of the run.

    Args:
        log: Where notes are written.
        row: The run, as it was claimed.
        records: What it recorded so far.

    Attributes:
        suspected: Whether the run crashed twice where it is now, and has recorded nothing since.
        alone: The key of the step whose body runs alone, or an empty text.
        cleared: Called when it has come further than before, or waits.
    """

    def __init__(self, log: Notes, row: RunRow, records: Sequence[StepRecord]) -> None:
        self.cleared: Callable[[], None] = lambda: None
        self._notes = log
        self._row = row
        self._log = row.crash_log
        self._count = len(records)
        self.suspected = bool(row.crashes) and self._log.repeated(self._count) >= SUSPECTED
        self.alone = ""
        self._noted: tuple[bool, str] | None = None

    def check(self, function: Function[object, object]) -> None:
        """Give the run up if its code crashed too often before it came to any step.

        Raises:
            CrashLoopError: If it did.
        """
        if not self.suspected:
            return
        crashes = self._log.outside(self._count)
        # Whether a body ran at the first two is not known: if one did, it is for its step to fail. One crash that was
        # surely outside proves nothing: it may be anybody's.
        if len(crashes) > max(function.crash_limit, SUSPECTED + 1):
            raise CrashLoopError(crashes=len(crashes), since=crashes[0])

    def in_window(self, window: int, key: str) -> list[float]:
        """When crashes were noticed that are put down to a step; see :meth:`CrashLog.in_window`."""
        return self._log.in_window(window, key) if self._row.crashes else []

    def must_be_alone(self, window: int, key: str, limit: int) -> bool:
        """Whether the next crash that cuts off a step is to be its own, since it was cut off so often.

        Args:
            window: See :attr:`Scope.window`.
            key: The step key.
            limit: How many crashes it may be cut off by.
        """
        return len(self.in_window(window, key)) >= max(1, min(SUSPECTED, limit))

    def progressed(self) -> None:
        """Something was recorded: a crash from now on is another one."""
        self.suspected = False
        self.cleared()

    @property
    def notes_bodies(self) -> bool:
        """Whether it is to be written down that a body begins."""
        return self.suspected or bool(self.alone) or (self._noted is not None and bool(self._noted[1]))

    async def body_begins(self) -> None:
        """A body begins: the next crash is its own, or of one that runs beside it."""
        noted = self._note(resting=False)
        if noted is not None:
            await asyncio.wait([noted])

    def lone_body_ended(self) -> None:
        """The body that ran alone has ended: the next crash is not its own."""
        self.alone = ""
        self._note(resting=False)

    def rests(self) -> None:
        """All branches of the run wait: the next crash is not its own."""
        self._note(resting=True)
        self.cleared()

    def goes_on(self) -> None:
        """The code of the run goes on after a rest, and nothing was recorded."""
        if self._noted is not None and self._noted[0]:
            self._note(resting=False)

    def _note(self, *, resting: bool) -> asyncio.Future[None] | None:
        note = (resting, self.alone)
        if not self.notes_bodies or self._noted == note:
            return None
        journal, log = self._notes.journal, self._log.came(resting=resting, alone=self.alone)
        self._noted = note
        return self._notes.write(lambda: journal.note_crashes(self._row, log), nothing, self._not_noted)

    def _not_noted(self, error: BaseException) -> None:
        self._noted = None
        if isinstance(error, JournalError):
            logger.warning("run %s: how far it came after its crashes is not noted: %s", self._row.id, error)


class Trial:
    """The one run that a worker drives among those that crashed twice in one place, until it has come further.

    Args:
        clock: Where time comes from.
        over: Called when it has, has ended, or is at it for so long that others are not kept waiting for it.
    """

    def __init__(self, clock: Clock, over: Callable[[], None]) -> None:
        self.run_id: str | None = None
        self._clock = clock
        self._over = over
        self._limit: Timer | None = None

    def begin(self, run_id: str) -> None:
        """A run is being driven."""
        self.run_id = run_id
        self._limit = self._clock.call_at(self._clock.now() + TRIAL_SECONDS, lambda: self.end(run_id))

    def end(self, run_id: str) -> None:
        """It has come further, or has ended; nothing for another run."""
        if self.run_id != run_id:
            return
        self.run_id = None
        if self._limit is not None:
            self._limit.cancel()
        # Not within the transaction, or the end, that brought it about.
        asyncio.get_running_loop().call_soon(self._over)
