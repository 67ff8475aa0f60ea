"""A process that dies at one of the points that its runs pass, for tests that try each of them."""

from __future__ import annotations

from durably.core.errors import Signal
from durably.core.steps import Point

__all__ = ["Killed", "KilledAt"]


class Killed(Signal):
    """The process is gone."""


class KilledAt:
    """A probe that ends the process at one point.

    Args:
        number: Which point, from 1; left out, none.

    Attributes:
        passed: How many points the runs have come to.
    """

    def __init__(self, number: int | None = None) -> None:
        self.passed = 0
        self._number = number

    def __call__(self, point: Point) -> None:
        self.passed += 1
        if self.passed == self._number:
            raise Killed
