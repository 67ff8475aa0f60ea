"""The faults that a random program is put through, and a journal that refuses to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from durably.backends.memory import MemoryJournal
from durably.backends.replay.journal_types import Changes
from durably.core.errors import JournalError, Signal

__all__ = ["Fault", "FaultKind", "FaultyJournal", "OutsideEvent", "WorkerKilledSignal"]

FaultKind = Literal["crash", "steal", "refuse", "forward", "back", "again", "stop"]


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th point after the fault before it.

    ``crash``: the worker dies. ``steal``: its lease ends while it lives, and another worker takes its runs.
    ``refuse``: the journal refuses so many commits. ``forward``, ``back``: the clock is set by so many seconds.
    ``again``: the run is started again and every event so far is delivered again. ``stop``: the worker stops in good
    order.
    """

    kind: FaultKind
    after: int
    amount: int = 1


@dataclass(frozen=True)
class OutsideEvent:
    """An event from outside: at the n-th point of the whole run. Equal ones are one event, delivered again."""

    after: int
    key: int
    id: int


class WorkerKilledSignal(Signal):
    """The worker dies."""


class FaultyJournal(MemoryJournal):
    """A journal that refuses commits for a while.

    Attributes:
        refuse: How many more it refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuse = 0

    def commit(self, *args: Any, **fields: Any) -> Changes:
        if self.refuse:
            self.refuse -= 1
            raise JournalError("no space left on device")
        return super().commit(*args, **fields)
