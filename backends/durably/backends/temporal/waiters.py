"""Those who wait in one hub, found by what they wait for."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Waiter", "Waiters", "pack_waiters", "unpack_waiters"]

Waiter = dict[str, Any]
"""A ``run``, the ``key`` of its step, the ``value`` it waits for (`value_of_match`), and ``since`` when it waits, in
seconds since 1970 by the server's clock."""

OVERHEAD = 110
"""How many characters one of them takes beside its run and its key, where hubs hand them on."""

FIELDS = ("run", "key", "value", "since")
"""What is kept of a waiter, column by column: that is compressed to a fifth."""


class Waiters:
    """Each step of a run waits once: told twice that it does, the later one counts.

    Args:
        waiting: Those who wait already.

    Attributes:
        size: How many characters all of them take.
    """

    def __init__(self, waiting: Iterable[Waiter] = ()) -> None:
        self.size = 0
        self._waiting: dict[tuple[str, str], Waiter] = {}
        self._by_value: dict[str, dict[tuple[str, str], None]] = {}
        for waiter in waiting:
            self.add(waiter)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiting.values())

    def add(self, waiter: Waiter) -> None:
        """One more waits."""
        self.drop(waiter["run"], waiter["key"])
        place = (waiter["run"], waiter["key"])
        self._waiting[place] = waiter
        self._by_value.setdefault(waiter["value"], {})[place] = None
        self.size += _size(waiter)

    def drop(self, run: str, key: str) -> None:
        """A step waits no longer, if it did."""
        waiter = self._waiting.pop((run, key), None)
        if waiter is None:
            return
        self.size -= _size(waiter)
        same = self._by_value[waiter["value"]]
        del same[run, key]
        if not same:
            del self._by_value[waiter["value"]]

    def take(self, values: Iterable[str], before: float | None) -> list[Waiter]:
        """Those who wait for one of these values, since a moment earlier than ``before``. They wait no longer."""
        places = [place for value in values for place in self._by_value.get(value, ())]
        found = [self._waiting[place] for place in places]
        taken = [waiter for waiter in found if before is None or waiter["since"] < before]
        for waiter in taken:
            self.drop(waiter["run"], waiter["key"])
        return taken


def _size(waiter: Waiter) -> int:
    return len(waiter["run"]) + len(waiter["key"]) + OVERHEAD


def pack_waiters(waiters: Iterable[Waiter]) -> str:
    """Those who wait, compressed: some 35 characters each."""
    waiting = [*waiters]
    columns = [[waiter[name] for waiter in waiting] for name in FIELDS]
    return b64encode(zlib.compress(json.dumps(columns).encode())).decode()


def unpack_waiters(packed: str) -> list[Waiter]:
    """What :func:`pack_waiters` packed."""
    columns = json.loads(zlib.decompress(b64decode(packed)))
    return [dict(zip(FIELDS, values, strict=True)) for values in zip(*columns, strict=True)]
