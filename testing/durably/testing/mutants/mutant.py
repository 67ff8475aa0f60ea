"""What a mutant is, the list of them, and how the suite kills one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.steps import Execution
from durably.testing.conformance import TESTS, MemorySubject, Outcome, check

__all__ = ["MUTANTS", "Mutant", "killers", "mutant"]

PATIENCE = 2.0
"""Real seconds after which a test that hangs counts as failed; a healthy backend needs a tenth of one."""

Broken = TypeVar("Broken", bound=type[MemoryBackend] | type[MemoryJournal] | type[Execution])


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A backend with one bug.

    Attributes:
        name: Such as ``"no-fencing"``.
        clause: The clause it breaks, such as ``"C08"``.
        bug: What it does, in a sentence.
        backend: The broken class.
        journal: Its storage.
    """

    name: str
    clause: str
    bug: str
    backend: type[MemoryBackend]
    journal: type[MemoryJournal] = MemoryJournal

    def subject(self) -> MemorySubject:
        """The mutant as a subject of the suite."""
        subject = MemorySubject(self.backend)
        subject.journal = self.journal()
        subject.patience = PATIENCE
        return subject


MUTANTS: list[Mutant] = []


def mutant(clause: str) -> Callable[[Broken], Broken]:
    """Add a broken class to the list. The class's docstring says what the bug is, its name is the mutant's.

    Args:
        clause: The clause that must notice it.
    """

    def add(broken: Broken) -> Broken:
        cls: Any = broken
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__.strip("_")).lower()
        parts: dict[str, Any] = {"backend": MemoryBackend}
        if issubclass(cls, MemoryBackend):
            parts = {"backend": cls, "journal": getattr(cls, "storage", MemoryJournal)}
        elif issubclass(cls, MemoryJournal):
            parts["journal"] = cls
        else:
            parts["backend"] = type(cls.__name__, (MemoryBackend,), {"execution": cls})
        MUTANTS.append(Mutant(name=name, clause=clause, bug=str(cls.__doc__).strip(), **parts))
        return broken

    return add


def killers(mutant: Mutant, *, tests: str | None = None) -> Iterator[Outcome]:
    """The tests that notice the bug, one after another.

    Args:
        mutant: What to put through the suite.
        tests: Only tests whose names hold this text; left out, those of the mutant's clause.
    """
    wanted = f"test_{mutant.clause.lower()}_" if tests is None else tests
    for name in TESTS:
        if wanted in name:
            yield from check(mutant.subject, tests=name, name=mutant.name).failures
