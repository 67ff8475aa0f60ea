"""Which crashes to try: those that a trace shows, those that were asked for, and a fair sample of too many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from durably.core.steps import Point
from durably.testing.crash.faults import Crash, matches, names

__all__ = ["Planned", "evenly", "find_crashes", "is_wanted", "one_of_each_kind", "parse_repro"]

Planned = tuple[tuple[Crash, ...], Crash]
"""The crashes before, which were tried, and one more."""


def find_crashes(trace: Iterable[Point]) -> list[Crash]:
    """A crash for each passage of a trace, in its order."""
    passed: Counter[tuple[str, str, str]] = Counter()
    found: list[Crash] = []
    for point in trace:
        place = (point.function, point.key, point.name)
        found.append(Crash(point.key, point.name, passed[place], point.function))
        passed[place] += 1
    return found


def parse_repro(text: str, function: str) -> tuple[Crash, ...]:
    """The crashes of a label, as a failure prints it: ``"think/after_commit, tool-charge/replay"``.

    Raises:
        ValueError: If it is not one.
    """
    parts = re.findall(r"\s*(.+?/[a-z_]+(?:#\d+)?)\s*(?:,|$)", text)
    if not parts:
        raise ValueError(f"{text!r} does not name a crash: copy the label from the failure, 'tool-charge/after_effect'")
    crashes = [Crash.parse(part) for part in parts]
    return tuple(
        crash if crash.function else Crash(crash.step, crash.at, crash.occurrence, function) for crash in crashes
    )


def is_wanted(crash: Crash, patterns: Iterable[str]) -> bool:
    """Whether a crash fits one of the patterns: a point name, or ``step/name`` with any of the step's ``names``."""
    places = [f"{step or 'run'}/{crash.at}" for step in names(crash.step)]
    places += [f"{crash.function}::{place}" for place in places]
    return any(
        any(matches(pattern, place) for place in places) if "/" in pattern else matches(pattern, crash.at)
        for pattern in patterns
    )


def one_of_each_kind(front: list[Planned]) -> list[Planned]:
    """The middle one of each kind of point for each step id, for where each experiment takes long."""
    kinds: dict[tuple[str, str | None, str], list[Planned]] = {}
    for each in front:
        crash = each[1]
        kinds.setdefault((crash.at, crash.function, names(crash.step)[-1]), []).append(each)
    return [those[len(those) // 2] for those in kinds.values()]


def evenly(items: list[Crash], count: int) -> list[Crash]:
    """So many of them, spread over the whole list."""
    if len(items) <= count:
        return items
    return [items[number * len(items) // count] for number in range(count)]
