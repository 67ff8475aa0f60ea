"""Forgetting finished runs: which of them go, in slices so small that nobody waits for one.

Owns the rules: what a retention means, what stays all the same, and which events nobody needs any more. Does not own
how a storage forgets: that is :class:`PrunableStorage`, which a journal may have.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from typing import Any

from durably.backends.replay.clock import Clock
from durably.backends.replay.patience import patiently
from durably.core import Function
from durably.core.retention import EVENT_MEMORY, Pruned, Retention
from durably.core.run_view import RunStatus

__all__ = ["EndedRun", "LoggedEvent", "OpenWait", "PrunableStorage", "Pruner"]

RUNS, RECORDS, EVENTS, PAGES = 40, 400, 400, 400
"""How much one transaction forgets at most: a few milliseconds' worth."""

LOOKS_SECONDS = 5.0
"""How long a run stays after its end in a storage that processes share: who waits for it there has not looked yet."""

NEEDS_PARENT = frozenset(status.value for status in RunStatus if not status.final or status is RunStatus.FAILED)
"""While the parent of a run stands so, it may ask for the run: it is live, or has failed and may be taken up again."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A finished run: its id, and when it began and ended, in seconds since 1970."""

    id: str
    created_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event in the log: its place, its name, and when it was received."""

    seq: int
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class OpenWait:
    """A wait of a run for an event that has not come: the event's name, and behind which place of the log."""

    name: str
    cursor: int


class PrunableStorage(ABC):
    """How a storage forgets. Each method that changes something is one transaction."""

    @abstractmethod
    def functions(self) -> Sequence[str]:
        """The ids of the functions that have finished runs."""

    @abstractmethod
    def count_ended(self, function: str) -> int:
        """How many finished runs a function has."""

    @abstractmethod
    def ended_runs(self, function: str) -> Iterator[EndedRun]:
        """The finished runs of a function in the order of their starts; runs may go between two of them."""

    @abstractmethod
    def forget_runs(self, run_ids: Sequence[str]) -> int:
        """Forget those of some runs that are finished and whose parents cannot ask for them; how many."""

    @abstractmethod
    def forget_records(self, limit: int) -> int:
        """Forget so many records of forgotten runs; how many."""

    @abstractmethod
    def open_waits(self) -> Iterator[Sequence[OpenWait]]:
        """The waits of the runs that are live, or have failed and may be taken up again; in pages."""

    @abstractmethod
    def newest_event(self) -> int:
        """The place of the newest event in the log. That event stays: places are counted from it."""

    @abstractmethod
    def events(self, seq: int, limit: int) -> Sequence[LoggedEvent]:
        """So many events after a place in the log, in order."""

    @abstractmethod
    def forget_events(self, seqs: Sequence[int]) -> int:
        """Forget these events and their ids; how many there were."""

    @abstractmethod
    def shrink(self, pages: int) -> bool:
        """Give some of what is free back to the file system; whether more is to be given back."""


class Pruner:
    """Forgets the finished runs of one journal.

    Args:
        storage: How it forgets.
        functions: What the worker serves; their ``retention=`` holds for their runs.
        default: The retention of all other functions, or ``None``.
        write: Makes a change to the journal.
        clock: Tells how old a run is.
        awaited: The runs that somebody here waits for.
        shared: Whether other processes may wait for runs too.
        patience: How long a slice waits for the lock of the storage, in seconds.
    """

    def __init__(
        self,
        storage: PrunableStorage,
        functions: Mapping[str, Function[Any, Any]],
        default: Retention | None,
        *,
        write: Callable[[Callable[[], int]], Awaitable[int]],
        clock: Clock,
        awaited: Callable[[], Collection[str]],
        shared: bool,
        patience: float,
    ) -> None:
        self.storage = storage
        self._functions = functions
        self._default = default
        self._write = write
        self._clock = clock
        self._awaited = awaited
        self._shared = shared
        self._patience = patience
        self._share = 0.5
        self._alone = asyncio.Lock()

    @property
    def has_rules(self) -> bool:
        """Whether any function has a retention, so that runs are forgotten without being asked to."""
        return self._default is not None or any(each.retention for each in self._functions.values())

    async def prune(self, rule: Retention | None, *, share: float = 0.5) -> Pruned:
        """Forget what may go.

        Args:
            rule: For all functions; ``None``: each by its own, or the default.
            share: The part of the time that it may take; the rest is left to others between the slices.
        """
        async with self._alone:
            self._share = share
            gone = Pruned()
            for function in self.storage.functions():
                own = rule or self._rule_of(function)
                if own is not None:
                    gone += await self._prune_function(function, own)
            gone += await self._forget_records()
            gone += Pruned(events=await self._prune_events(self.event_memory(rule)))
            while await self._slice(partial(self.storage.shrink, PAGES)):
                pass
            return gone

    def _rule_of(self, function: str) -> Retention | None:
        known = self._functions.get(function)
        return known.retention if known is not None and known.retention is not None else self._default

    # -- runs

    async def _prune_function(self, function: str, rule: Retention) -> Pruned:
        gone = Pruned()
        chosen = self.choose(function, rule)
        while batch := [run.id for run in islice(chosen, RUNS)]:
            gone += Pruned(runs=await self._slice(partial(self._forget_runs, batch)))
            gone += await self._forget_records()
        return gone

    def choose(self, function: str, rule: Retention) -> Iterator[EndedRun]:
        """The finished runs of a function that its rule lets go, oldest first."""
        now = self._clock.now()
        newest = now - LOOKS_SECONDS if self._shared else now
        too_old = float("-inf") if rule.seconds is None else now - rule.seconds
        surplus = 0 if rule.count is None else self.storage.count_ended(function) - rule.count
        for place, run in enumerate(self.storage.ended_runs(function)):
            if place >= surplus and run.created_at > too_old:
                return
            if run.ended_at <= newest and (place < surplus or run.ended_at <= too_old):
                yield run

    def _forget_runs(self, run_ids: Sequence[str]) -> int:
        awaited = set(self._awaited())
        return self.storage.forget_runs([run_id for run_id in run_ids if run_id not in awaited])

    async def _forget_records(self) -> Pruned:
        records = 0
        while forgotten := await self._slice(partial(self.storage.forget_records, RECORDS)):
            records += forgotten
        return Pruned(records=records)

    # -- events

    def event_memory(self, rule: Retention | None = None) -> float:
        """How long an event is remembered: as long as any run that it may have started, and a day at least."""
        rules = [rule] if rule else [self._default, *(each.retention for each in self._functions.values())]
        return max(EVENT_MEMORY, *(each.seconds or 0.0 for each in rules if each is not None), 0.0)

    async def _prune_events(self, memory: float) -> int:
        before = self._clock.now() - memory
        if not self._old_events(before, 0):
            return 0
        # The log is looked at before the waits: one that begins later counts only what comes after this place.
        newest = self.storage.newest_event()
        needed = await self._needed_since()
        seen = gone = 0
        while old := self._old_events(before, seen):
            seen = old[-1].seq
            free = [each.seq for each in old if each.seq < newest and each.seq <= needed.get(each.name, each.seq)]
            gone += await self._slice(partial(self.storage.forget_events, free)) if free else 0
        return gone

    def _old_events(self, before: float, seq: int) -> list[LoggedEvent]:
        """The next events after a place of the log, up to the first that is not old enough."""
        return list(takewhile(lambda event: event.at <= before, self.storage.events(seq, EVENTS)))

    async def _needed_since(self) -> dict[str, int]:
        """Behind which place of the log each name of an event is still waited for."""
        needed: dict[str, int] = {}
        for page in self.storage.open_waits():
            for wait in page:
                needed[wait.name] = min(wait.cursor, needed.get(wait.name, wait.cursor))
            await asyncio.sleep(0)
        return needed

    # -- time

    async def _slice(self, change: Callable[[], int]) -> int:
        """One transaction, and then time for others."""
        began = time.perf_counter()
        result = await patiently(lambda: self._write(change), self._patience)
        took = time.perf_counter() - began
        await asyncio.sleep(took * (1 - self._share) / self._share if self._shared else 0)
        return result
