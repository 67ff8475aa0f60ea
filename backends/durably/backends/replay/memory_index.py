"""What a journal in memory finds without a look at all that it holds: live runs, and events of a later time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

from durably.backends.replay.journal_types import RunRow
from durably.core import Event
from durably.core.run_view import RunStatus

__all__ = ["LaterEvents", "LiveRuns"]

TAKEN = frozenset({RunStatus.RUNNING, RunStatus.STUCK})
"""What a worker takes up; a run that a rule of flow control holds back waits for its turn."""

_FEW, _MANY = 8, 256
"""How many runs are looked up first, and then, of those that somebody may need one of."""

Key = tuple[str, str]


class LiveRuns:
    """The ids of the live runs, by their owners and by their singleton keys, oldest first."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str | None, bool, Key | None]] = {}
        self._owned: dict[str | None, dict[str, int]] = {}
        self._unsorted: set[str | None] = set()
        self._singletons: dict[Key, dict[str, int]] = {}

    def put(self, row: RunRow, number: int) -> None:
        """Note how a run is stored now.

        Args:
            row: The run.
            number: Its number, which grows from run to run.
        """
        key = None if row.singleton is None else (row.function, row.singleton)
        place = row.owner, row.status in TAKEN, key
        if not row.status.final and self._places.get(row.id) == place:
            return
        self.drop(row.id)
        if row.status.final:
            return
        self._places[row.id] = place
        if row.status in TAKEN:
            owned = self._owned.setdefault(row.owner, {})
            if owned and number < owned[next(reversed(owned))]:  # one that was given back
                self._unsorted.add(row.owner)
            owned[row.id] = number
        if key is not None:
            self._singletons.setdefault(key, {})[row.id] = number

    def drop(self, run_id: str) -> None:
        """Forget a run, if it is known."""
        owner, is_taken, key = self._places.pop(run_id, (None, False, None))
        if is_taken:
            del self._owned[owner][run_id]
            if not self._owned[owner]:
                del self._owned[owner]
                self._unsorted.discard(owner)
        if key is not None:
            del self._singletons[key][run_id]
            if not self._singletons[key]:
                del self._singletons[key]

    @property
    def owners(self) -> list[str]:
        """The workers that have any."""
        return [owner for owner in self._owned if owner is not None]

    def count(self, owner: str) -> int:
        """How many runs a worker has."""
        return len(self._owned.get(owner, ()))

    def of(self, owner: str | None) -> Iterator[tuple[int, str]]:
        """The numbers and the ids of the runs that a worker has, or nobody; who asks may change them meanwhile."""
        last, size = 0, _FEW
        while True:
            if owner in self._unsorted:
                self._unsorted.discard(owner)
                self._owned[owner] = dict(sorted(self._owned[owner].items(), key=lambda pair: pair[1]))
            later = ((number, each) for each, number in self._owned.get(owner, {}).items() if number > last)
            page = list(islice(later, size))
            yield from page
            if not page:
                return
            last, size = page[-1][0], _MANY

    def with_key(self, key: Key) -> list[str]:
        """The live runs of a function that have a singleton key."""
        return sorted(self._singletons.get(key, ()), key=self._singletons.get(key, {}).__getitem__)


class LaterEvents:
    """Events that are kept until their time."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}
        self._heap: list[tuple[float, int, Event]] = []
        self._count = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LaterEvents) and self._events == other._events

    __hash__ = None  # type: ignore[assignment]  # it changes

    def copy(self) -> LaterEvents:
        """The same events, kept apart."""
        copy = LaterEvents()
        copy._events, copy._heap, copy._count = dict(self._events), list(self._heap), self._count
        return copy

    def add(self, event: Event) -> bool:
        """Keep one more; ``False`` if there is one with its id."""
        if event.id in self._events:
            return False
        self._events[event.id or ""] = event
        self._count += 1
        heapq.heappush(self._heap, (event.ts or 0.0, self._count, event))
        return True

    @property
    def next_due(self) -> float | None:
        """When the next is due, in seconds since 1970."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: float, limit: int) -> list[Event]:
        """The first that are due, in the order of their times; they are kept no longer."""
        due: list[Event] = []
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            _, _, event = heapq.heappop(self._heap)
            due.append(self._events.pop(event.id or ""))
        return due
