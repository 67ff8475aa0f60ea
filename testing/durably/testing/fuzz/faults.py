"""The faults that a random program is put through, and a journal that refuses to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from durably.backends.memory import MemoryJournal
from durably.backends.replay.journal_types import Changes
from durably.backends.replay.sqlite_file import SQLiteFile
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core.errors import JournalError, Signal

__all__ = [
    "Fault",
    "FaultKind",
    "FaultyFile",
    "FaultyJournal",
    "FaultySQLiteJournal",
    "OutsideEvent",
    "Refusals",
    "WorkerKilledSignal",
]

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


class Refusals:
    """How many more commits a file refuses, whoever writes to it.

    Attributes:
        left: So many.
    """

    def __init__(self) -> None:
        self.left = 0


class FaultyFile(SQLiteFile):
    """A file whose disk fails when it commits.

    Attributes:
        fails: Whether the next commit fails: all that was made in it is undone by SQLite itself.
    """

    fails = False

    def commit(self) -> None:
        if self.fails:
            self.fails = False
            raise JournalError(f"{self.path}: disk I/O error")
        super().commit()


class FaultySQLiteJournal(SQLiteJournal):
    """A journal whose transactions are refused for a while, if a record is in them: made, and not committed."""

    files: ClassVar[type[SQLiteFile]] = FaultyFile
    refusals: ClassVar[Refusals]
    """Those of the file, which several workers write to; each file has a subclass."""

    def commit(self, *args: Any, **fields: Any) -> Changes:
        changes = super().commit(*args, **fields)
        if self.refusals.left:
            assert isinstance(self.file, FaultyFile)
            self.refusals.left -= 1
            self.file.fails = True
        return changes
