"""What a mutant is, the list of them, and how the suite kills one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.memory_pruning import MemoryPruning
from durably.backends.replay.parts import Parts
from durably.testing.conformance import TESTS, MemorySubject, Outcome, check

__all__ = ["MUTANTS", "Mutant", "killers", "mutant"]

PATIENCE = 2.0
"""Real seconds after which a test that hangs counts as failed; a healthy backend needs a tenth of one."""

Broken = TypeVar("Broken", bound=type[Any])


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

    A broken backend or journal is used as it is. A broken way to forget is given to a journal. Any other class must be
    one of the engine's ``Parts``, and takes the place of the one it is derived from.

    Args:
        clause: The clause that must notice it.
    """

    def add(broken: Broken) -> Broken:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", broken.__name__.strip("_")).lower()
        backend: type[MemoryBackend] = MemoryBackend
        journal: type[MemoryJournal] = MemoryJournal
        if issubclass(broken, MemoryBackend):
            backend, journal = broken, getattr(broken, "storage", MemoryJournal)
        elif issubclass(broken, MemoryJournal):
            journal = broken
        elif issubclass(broken, MemoryPruning):
            journal = type(broken.__name__, (MemoryJournal,), {"prunes_by": broken})
        else:
            made: Any = type(broken.__name__, (MemoryBackend,), {"parts": with_part(broken)})
            backend = made
        bug = str(broken.__doc__).strip()
        MUTANTS.append(Mutant(name=name, clause=clause, bug=bug, backend=backend, journal=journal))
        return broken

    return add


def with_part(broken: type[Any]) -> Parts:
    """The parts of the engine with one of them in the place of the class it is derived from."""
    parts = Parts()
    (name,) = (field.name for field in fields(parts) if issubclass(broken, getattr(parts, field.name)))
    return replace(parts, **{name: broken})


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
