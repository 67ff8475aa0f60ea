"""Whole numbers that say how many."""

from __future__ import annotations

from typing import TypeGuard

__all__ = ["is_count"]


def is_count(value: object, least: int) -> TypeGuard[int]:
    """Return whether this is a whole number of at least ``least``. ``True`` is none, although Python counts with it."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
