"""The table of docs/contract-coverage.md: what each clause says, what tests it, and what breaks it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from durably.testing.conformance import TESTS

__all__ = ["ROOT", "Row", "rows"]

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Row:
    """One statement of a clause.

    Attributes:
        clause: Such as ``"C04"``.
        statement: Its words in the contract.
        patterns: The names of its tests as the table has them, and paths of tests outside the suite.
        mutants: The names of the mutants that one of its tests kills.
        elsewhere: Paths of tests that break what is outside the engine in memory, and see that its tests notice it.
        reason: Why there are none, if so.
    """

    clause: str
    statement: str
    patterns: tuple[str, ...]
    mutants: tuple[str, ...]
    elsewhere: tuple[str, ...]
    reason: str

    def matching(self, pattern: str) -> list[str]:
        """The tests of the suite that a pattern stands for."""
        return [name for name in TESTS if fnmatchcase(name, f"test_{self.clause.lower()}_{pattern}")]

    @property
    def tests(self) -> list[str]:
        """Its tests in the suite."""
        return [name for pattern in self.patterns for name in self.matching(pattern)]


def rows() -> list[Row]:
    """The rows of the table, in its order."""
    found = []
    for line in (ROOT / "docs/contract-coverage.md").read_text(encoding="utf-8").splitlines():
        if re.match(r"\| C\d\d \|", line):
            clause, statement, tests, mutants = line.strip("| ").split(" | ")
            named = () if mutants.startswith("none: ") else _named(mutants)
            here = tuple(name for name in named if "/" not in name)
            elsewhere = tuple(name for name in named if "/" in name)
            found.append(Row(clause, statement, _named(tests), here, elsewhere, "" if named else mutants))
    return found


def _named(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))
