"""The port to what the rules of flow control remember, and the storage in memory behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Entry", "FlowStore", "Kind", "MemoryFlowStore"]

Kind = Literal["held", "batch", "batched", "start", "throttle", "cron", "slot", "heard"]
"""What an entry is: a run that is held back; a batch that is filled, and an event in it; the start of a run that a rate
limit counts; when a throttle lets the next run through; a cron's next time; a body that runs or waits for its turn; up
to where the log's events of a name had a function to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that a rule remembers.

    Attributes:
        kind: What it is.
        id: Its id among those of its kind.
        gate: The rule, the function and the key that it belongs to.
        rank: Its place among those of its gate, the lowest first; of equal ones the older.
        due: When something is to be done about it, in seconds since 1970, or ``None``.
        value: JSON data.
    """

    kind: Kind
    id: str
    gate: str
    rank: float = 0.0
    due: float | None = None
    value: Any = None


class FlowStore(ABC):
    """Entries, in the storage of a journal and within its transactions."""

    @abstractmethod
    def put(self, entry: Entry) -> None:
        """Add an entry, or change the one that has its kind and id; that keeps its age."""

    @abstractmethod
    def drop(self, kind: Kind, id: str) -> None:
        """Remove an entry, if it is there."""

    @abstractmethod
    def find(self, kind: Kind, id: str) -> Entry | None:
        """The entry of an id."""

    @abstractmethod
    def list(self, kind: Kind, gate: str, limit: int | None = None) -> Sequence[Entry]:
        """The first entries of a gate, by rank and age."""

    @abstractmethod
    def count(self, kind: Kind, gate: str) -> int:
        """How many entries a gate has."""

    @abstractmethod
    def all(self, kind: Kind) -> Sequence[Entry]:
        """The entries of a kind, by age."""

    @abstractmethod
    def due(self, kind: Kind, now: float) -> Sequence[Entry]:
        """The entries that are due by a moment, the earliest first."""

    @abstractmethod
    def next_due(self, kinds: Iterable[Kind]) -> float | None:
        """When the next entry of these kinds is due, or ``None``."""


class MemoryFlowStore(FlowStore):
    """Entries that live as long as the object."""

    def __init__(self) -> None:
        self._entries: dict[Kind, dict[str, Entry]] = defaultdict(dict)
        self._gates: dict[tuple[Kind, str], dict[str, None]] = defaultdict(dict)

    def copy(self) -> MemoryFlowStore:
        """The same entries, in a storage of their own."""
        copy = MemoryFlowStore()
        for kind in list(self._entries):
            for entry in self.all(kind):
                copy.put(entry)
        return copy

    def holds_the_same_as(self, other: MemoryFlowStore) -> bool:
        """Whether two have the same entries."""
        kinds = set(self._entries) | set(other._entries)
        return all(self._entries.get(kind, {}) == other._entries.get(kind, {}) for kind in kinds)

    def put(self, entry: Entry) -> None:
        before = self.find(entry.kind, entry.id)
        if before is not None and before.gate != entry.gate:
            del self._gates[entry.kind, before.gate][entry.id]
        self._entries[entry.kind][entry.id] = entry
        self._gates[entry.kind, entry.gate][entry.id] = None

    def drop(self, kind: Kind, id: str) -> None:
        entry = self._entries[kind].pop(id, None)
        if entry is not None:
            del self._gates[kind, entry.gate][id]
            if not self._gates[kind, entry.gate]:
                del self._gates[kind, entry.gate]

    def find(self, kind: Kind, id: str) -> Entry | None:
        return self._entries[kind].get(id)

    def list(self, kind: Kind, gate: str, limit: int | None = None) -> Sequence[Entry]:
        found = [self._entries[kind][id] for id in self._gates.get((kind, gate), ())]
        return sorted(found, key=lambda each: each.rank)[:limit]  # stable: of equal ranks the older one is first

    def count(self, kind: Kind, gate: str) -> int:
        return len(self._gates.get((kind, gate), ()))

    def all(self, kind: Kind) -> Sequence[Entry]:
        return list(self._entries[kind].values())

    def due(self, kind: Kind, now: float) -> Sequence[Entry]:
        found = [(each.due, each) for each in self.all(kind) if each.due is not None and each.due <= now]
        return [each for _, each in sorted(found, key=lambda pair: (pair[0], pair[1].rank))]

    def next_due(self, kinds: Iterable[Kind]) -> float | None:
        moments = [each.due for kind in kinds for each in self.all(kind) if each.due is not None]
        return min(moments, default=None)
