"""The crashes of a run: what each is put down to, and how long the run then waits until it is taken up again.

A crash is noticed by whoever finds that the owner of a run has vanished. That a body was running is not written down:
it would cost each step a second commit. Known is how many records the run had. So a crash is put down to every step
that could have been running then, also where another run of the process brought it about.

A step that was cut off so by two crashes runs alone in its run from then on (``LoneBodies``), and that is written down.
A crash meanwhile is put down to it and to no other: a slow body beside one that kills the process is cut off twice, and
not blamed further.

A run that has crashed twice in one place is suspected. It waits for a growing while before it is taken up again, and a
worker takes up one such run at a time, so that the runs that crashed only along with another one come further without
it. Of a suspected run it is written down how far it comes (``CrashWatch``): that a body begins, or that all its
branches wait. A crash while they wait is nobody's; one before either is put down to the code around the steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["SUSPECTED", "CrashLog", "pause_after"]

SUSPECTED = 2
"""From so many crashes in one place on, a run is suspected."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between the second crash in one place and the recovery, and at most; each pause is twice the one before."""


def pause_after(crashes: int) -> float:
    """How many seconds a run waits after so many crashes in one place. After the first it is taken up at once."""
    return 0.0 if crashes < SUSPECTED else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(crashes - SUSPECTED, 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLog:
    """The crashes of one run, and the stops that cut off one of its bodies.

    Attributes:
        counts: How many records the run had at each.
        times: When each was noticed, in seconds since 1970; ``None`` for a stop in good order, which counts for nothing
            but the number of the next execution.
        due: When the run may be taken up again, in seconds since 1970; 0 if it is not suspected of having crashed.
        reached: How many crashes had been when the code last came to a body, or to rest.
        resting: Whether all its branches waited then.
        alone: The key of the step whose body ran alone then, or an empty text.
        blamed: The step that each crash is put down to; an empty text for all that could have been running.
    """

    counts: tuple[int, ...] = ()
    times: tuple[float | None, ...] = ()
    due: float = 0.0
    reached: int = 0
    resting: bool = False
    alone: str = ""
    blamed: tuple[str, ...] = ()

    @classmethod
    def read(cls, counts: tuple[int, ...], notes: str, since: float) -> CrashLog:
        """The log of a run as it is stored.

        Args:
            counts: See above.
            notes: The rest, as :attr:`notes` wrote it; a file of an older version has none.
            since: The time of crashes that were noticed by an older version, which wrote none down.
        """
        said: dict[str, Any] = json.loads(notes) if notes else {}
        times = tuple(said.pop("times", ()))
        blamed = tuple(said.pop("blamed", ()))
        return cls(
            counts=counts,
            times=(*[since] * (len(counts) - len(times)), *times),
            blamed=(*[""] * (len(counts) - len(blamed)), *blamed),
            **said,
        )

    @property
    def notes(self) -> str:
        """All but the counts, as JSON text; empty if there is nothing to say."""
        said: dict[str, Any] = {"times": self.times, "due": self.due, "reached": self.reached, "resting": self.resting}
        said |= {"alone": self.alone, "blamed": self.blamed if any(self.blamed) else ()}
        return json.dumps({name: value for name, value in said.items() if value}) if any(said.values()) else ""

    # -- what happened

    def crashed(self, count: int, now: float) -> CrashLog:
        """The log after a crash.

        Args:
            count: How many records the run has.
            now: When it is noticed, in seconds since 1970.
        """
        if self.resting and self.counts[-1:] == (count,):
            return replace(self, due=0.0, resting=False)  # it waited: whatever crashed was something else
        after = self._with(count, now, self.alone)
        pause = pause_after(after.repeated(count))
        return replace(after, due=now + pause if pause else 0.0)

    def stopped(self, count: int) -> CrashLog:
        """The log after a stop in good order that cut off a body."""
        return replace(self._with(count, None, ""), due=0.0)

    def _with(self, count: int, time: float | None, blamed: str) -> CrashLog:
        return replace(
            self,
            counts=(*self.counts, count),
            times=(*self.times, time),
            blamed=(*self.blamed, blamed),
            resting=False,
            alone="",
        )

    def came(self, *, resting: bool, alone: str = "") -> CrashLog:
        """The log once the code has come to a body, which runs alone if its key is given, or to rest."""
        return replace(self, reached=len(self.counts), resting=resting, alone=alone)

    def forgiven(self) -> CrashLog:
        """The log of a run that is taken up again after it failed: its crashes count no more, but for numbers."""
        return CrashLog(counts=self.counts, times=(None,) * len(self.counts), blamed=("",) * len(self.counts))

    # -- what it means

    def in_window(self, window: int, key: str) -> list[float]:
        """When the crashes were noticed that are put down to a step.

        Args:
            window: How many records the run had at least while the step could have been running.
            key: The step key.
        """
        crashes = zip(self.counts, self.times, self.blamed, strict=True)
        return [time for count, time, blamed in crashes if count >= window and time and blamed in ("", key)]

    def repeated(self, count: int) -> int:
        """How many crashes there were since the run has so many records."""
        return sum(1 for _ in self._latest(count))

    def outside(self, count: int) -> list[float]:
        """When the crashes were noticed, since the run has so many records, that are put down to code around steps."""
        return sorted(time for place, time in self._latest(count) if place >= self.reached)

    def _latest(self, count: int) -> Iterator[tuple[int, float]]:
        for place in range(len(self.counts) - 1, -1, -1):
            if self.counts[place] != count:
                return
            if (time := self.times[place]) is not None:
                yield place, time
