"""Which waits an event may end: found by its name and by the values that they ask for, without a look at the others.

It may find some that want another event after all, such as a later one. It misses none. What a wait asks for is part of
its place here where :func:`~durably.core.events.json_key` has a key for it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from durably.core import Event
from durably.core.events import json_key

__all__ = ["WaitIndex"]

Paths = tuple[str, ...]
Keys = tuple[Hashable, ...]


class _Wait(Protocol):
    name: str

    @property
    def match(self) -> Mapping[str, Any]: ...


W = TypeVar("W", bound=_Wait)


class WaitIndex(Generic[W]):
    """Waits by the names of their events, the paths that they look at, and the values that must be there."""

    def __init__(self) -> None:
        self._places: dict[W, tuple[int, Paths, Keys]] = {}
        self._count = 0
        self._names: dict[str, dict[Paths, dict[Keys, dict[W, None]]]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[W]:
        return iter(list(self._places))

    def __contains__(self, wait: W) -> bool:
        return wait in self._places

    @property
    def names(self) -> Collection[str]:
        """The names of the events that are waited for."""
        return self._names.keys()

    def add(self, wait: W) -> None:
        """One more waits."""
        if wait in self._places:
            return
        paths, keys = _place(wait.match)
        self._count += 1
        self._places[wait] = self._count, paths, keys
        self._names.setdefault(wait.name, {}).setdefault(paths, {}).setdefault(keys, {})[wait] = None

    def discard(self, wait: W) -> None:
        """It waits no longer, if it did."""
        place = self._places.pop(wait, None)
        if place is None:
            return
        _, paths, keys = place
        by_paths = self._names[wait.name]
        by_keys = by_paths[paths]
        same = by_keys[keys]
        del same[wait]
        if not same:
            del by_keys[keys]
        if not by_keys:
            del by_paths[paths]
        if not by_paths:
            del self._names[wait.name]

    def find(self, event: Event) -> list[W]:
        """The waits that an event may end, in the order in which they began."""
        found: list[W] = []
        for paths, by_keys in self._names.get(event.name, {}).items():
            keys = [json_key(event.at(path)) for path in paths]
            if None in keys:  # data that was not read from JSON: any of them may want it
                found += [wait for same in by_keys.values() for wait in same]
            else:
                found += by_keys.get(tuple(keys), ())
        return sorted(found, key=lambda wait: self._places[wait][0])


def _place(match: Mapping[str, Any]) -> tuple[Paths, Keys]:
    keyed = [(path, key) for path in sorted(match) if (key := json_key(match[path])) is not None]
    return tuple(path for path, _ in keyed), tuple(key for _, key in keyed)
