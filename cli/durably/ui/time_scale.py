"""How moments of a run become places on its time line.

A run may work for seconds and wait for days. Drawn to scale, the work would be a hair. Long stretches in which no body
runs are squeezed, and marked as such.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from durably.cli.text import seconds

__all__ = ["WIDTH", "Break", "Tick", "TimeScale"]

WIDTH = 1000.0
"""The width of a time line, in units of its drawing."""

SQUEEZED = 50.0
"""How much of it a squeezed stretch takes."""

LONG_SHARE = 0.6
"""A stretch without work is squeezed if it lasts longer than this share of all the work."""


@dataclass(frozen=True)
class Tick:
    """A mark on the time line: where, and how long after the start."""

    x: float
    label: str


@dataclass(frozen=True)
class Break:
    """A squeezed stretch: from where to where, and how long it lasts; empty where the label has no room."""

    x: float
    width: float
    label: str


LABEL = 100.0
"""How much room a label takes, with the space beside it."""


class TimeScale:
    """A time line from the start of a run to its end.

    Args:
        start: Seconds since 1970.
        end: Seconds since 1970.
        work: From when to when bodies ran.
        squeeze: Whether long stretches without work are squeezed.
    """

    def __init__(
        self, start: float, end: float, work: Iterable[tuple[float, float]] = (), *, squeeze: bool = True
    ) -> None:
        self._start = start
        end = max(end, start + 0.001)
        idle = _idle(start, end, work)
        busy = end - start - sum(till - since for since, till in idle)
        long = [(since, till) for since, till in idle if squeeze and busy > 0 and till - since > LONG_SHARE * busy]
        # Squeezing pays only where it leaves most of the room to the work.
        long = sorted(sorted(long, key=lambda gap: gap[0] - gap[1])[:8])
        scaled = end - start - sum(till - since for since, till in long)
        self._unit = (WIDTH - SQUEEZED * len(long)) / scaled if scaled > 0 else 0.0
        self._moments: list[float] = [start]
        self._places: list[float] = [0.0]
        stretches: list[tuple[float, float]] = []
        for since, till in long:
            self._add(since, self._places[-1] + (since - self._moments[-1]) * self._unit)
            stretches.append((self._places[-1], till - since))
            self._add(till, self._places[-1] + SQUEEZED)
        self._add(end, WIDTH)
        labelled = _with_room(stretches)
        self.breaks = [Break(x, SQUEEZED, seconds(lasts) if x in labelled else "") for x, lasts in stretches]
        self.squeezed = bool(long)

    def _add(self, moment: float, place: float) -> None:
        self._moments.append(moment)
        self._places.append(place)

    def at(self, moment: float) -> float:
        """The place of a moment, from 0 to ``WIDTH``."""
        if moment <= self._moments[0]:
            return 0.0
        if moment >= self._moments[-1]:
            return WIDTH
        index = bisect_right(self._moments, moment) - 1
        since, till = self._moments[index], self._moments[index + 1]
        left, right = self._places[index], self._places[index + 1]
        return left + (moment - since) / (till - since) * (right - left) if till > since else left

    def ticks(self, count: int = 6) -> list[Tick]:
        """Marks at even places, each with the time since the start."""
        places = [WIDTH * number / count for number in range(count)]
        return [
            Tick(place, seconds(self._moment(place) - self._start) if place else "0")
            for place in places
            if all(abs(each.x + each.width / 2 - place) >= LABEL for each in self.breaks if each.label)
        ]

    def _moment(self, place: float) -> float:
        index = min(bisect_right(self._places, place), len(self._places) - 1) - 1
        left, right = self._places[index], self._places[index + 1]
        since, till = self._moments[index], self._moments[index + 1]
        return since + (place - left) / (right - left) * (till - since) if right > left else since


def _with_room(stretches: Iterable[tuple[float, float]]) -> set[float]:
    """The places of the stretches that are labelled: the longest, each so far from another that both can be read."""
    found: set[float] = set()
    for x, _ in sorted(stretches, key=lambda each: -each[1]):
        if all(abs(x - other) >= LABEL for other in found):
            found.add(x)
    return found


def _idle(start: float, end: float, work: Iterable[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """The stretches between the work, in order."""
    found: list[tuple[float, float]] = []
    until = start
    for since, till in sorted(work):
        if since > until:
            found.append((until, min(since, end)))
        until = max(until, till)
    if end > until:
        found.append((until, end))
    return found
