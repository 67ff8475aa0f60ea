"""Concurrency: how many bodies of a function run at the same time, over all workers of a journal.

A body that is to run asks for a slot at each gate of its function. Who asks and who has one stands in the journal, so
that workers see each other. A slot belongs to a worker: that of a dead one does not count.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from durably.backends.replay.flow.rules import gate_of
from durably.backends.replay.flow.store import Entry, FlowStore
from durably.backends.replay.records import Log
from durably.backends.replay.scheduler import RunScheduler, Scheduler
from durably.core import Event, Function
from durably.core.errors import CancelSignal, JournalError, Signal, SuspendSignal
from durably.core.input_paths import key_value, number_at

__all__ = ["Slots", "Wanted", "wanted_slots"]

logger = logging.getLogger("durably")

T = TypeVar("T")

TROUBLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the bodies of one run need.

    Attributes:
        limits: The gates, and how many bodies may be behind each.
        earlier: How many seconds earlier they are queued, by their priority.
    """

    limits: tuple[tuple[str, int], ...]
    earlier: float


def wanted_slots(function: Function[Any, Any], event: Event) -> Wanted:
    """What the bodies need of a run that an event has started.

    Raises:
        MissingKeyError: If the event has no value at the key of a rule.
    """
    limits = []
    for rule in function.concurrency:
        key = key_value(event, rule.key, function=function.id, option="concurrency") if rule.key else ""
        # Beyond one function a rule is named by its key: where it says the same, it is the same rule.
        whose = function.id if rule.scope == "fn" else f"{rule.scope} {rule.key}"
        limits.append((gate_of("concurrency", whose, key), rule.limit))
    earlier = 0.0
    if function.priority is not None and function.batch is None:
        path = function.priority.run.removeprefix("event.")
        earlier = number_at(event, path, function=function.id, option="priority")
    return Wanted(tuple(limits), earlier)


class Slots:
    """The slots of one worker.

    Args:
        log: How the worker writes: its journal knows who has a slot, and who waits.
        scheduler: Wakes who waited.
    """

    def __init__(self, log: Log, scheduler: Scheduler) -> None:
        self._log = log
        self._scheduler = scheduler
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    @asynccontextmanager
    async def hold(self, wanted: Wanted, run_id: str, key: str, run: RunScheduler) -> AsyncIterator[None]:
        """Wait for a slot at each gate, and have them for a while.

        Args:
            wanted: The gates.
            run_id: The run.
            key: The key of the step.
            run: How the run waits; a signal for it ends the waiting.
        """
        waiter = f"{run_id} {key}"
        gone = False
        try:
            turn = self._waiting[waiter] = run.future()
            if not await self._when_writable(run, lambda: self._ask(waiter, wanted)):
                await run.park(turn, None)
            yield
        except Signal as signal:
            gone = not isinstance(signal, SuspendSignal | CancelSignal)  # a process that is gone gives nothing back
            raise
        finally:
            self._waiting.pop(waiter, None)
            if not gone:
                await self._when_writable(run, lambda: self._give_back(waiter, wanted))

    async def look(self) -> None:
        """Wake those who got a slot because another worker gave one back, or is gone."""
        if self._waiting:
            await self._log.write(lambda: self._grant({each.gate for each in self._store.all("slot")}), self._wake)

    @property
    def _store(self) -> FlowStore:
        assert self._log.journal.flow is not None
        return self._log.journal.flow

    async def _ask(self, waiter: str, wanted: Wanted) -> bool:
        """Stand in line at each gate; whether the slots are there at once."""

        def granted(have: set[str]) -> None:
            if waiter in have:
                self._waiting.pop(waiter, None)  # it goes on by itself
            self._wake(have)

        return waiter in await self._log.write(lambda: self._stand_in_line(waiter, wanted), granted)

    def _stand_in_line(self, waiter: str, wanted: Wanted) -> set[str]:
        rank = self._scheduler.clock.now() - wanted.earlier
        value = {"waiter": waiter, "worker": self._log.worker, "limits": wanted.limits, "taken": False}
        with self._log.journal.transaction():
            for gate, _ in wanted.limits:
                self._store.drop("slot", f"{gate} {waiter}")  # what a crash of this run has left behind
                self._store.put(Entry(kind="slot", id=f"{gate} {waiter}", gate=gate, rank=rank, value=value))
            return self._grant([gate for gate, _ in wanted.limits])

    async def _give_back(self, waiter: str, wanted: Wanted) -> None:
        if self._log.crash is None:
            await self._log.write(lambda: self._leave(waiter, wanted), self._wake)

    def _leave(self, waiter: str, wanted: Wanted) -> set[str]:
        with self._log.journal.transaction():
            for gate, _ in wanted.limits:
                self._store.drop("slot", f"{gate} {waiter}")
            return self._grant([gate for gate, _ in wanted.limits])

    def _wake(self, have: set[str]) -> None:
        """Let those go on that have a slot now."""
        for waiter in have & self._waiting.keys():
            self._scheduler.wake(self._waiting[waiter])

    def _grant(self, gates: Iterable[str]) -> set[str]:
        """Give free slots to those who wait longest, within a transaction; those who have one now."""
        entries = self._living(gates)
        have = set()
        for entry in sorted(entries, key=lambda each: each.rank):
            value, waiter = entry.value, entry.value["waiter"]
            if not value["taken"] and waiter not in have and self._is_free(value["limits"]):
                for gate, _ in value["limits"]:
                    taken = {**value, "taken": True}
                    self._store.put(replace(entry, id=f"{gate} {waiter}", gate=gate, value=taken))
                have.add(waiter)
            elif value["taken"]:
                have.add(waiter)
        return have

    def _living(self, gates: Iterable[str]) -> list[Entry]:
        """The entries of gates, after those of dead workers are removed."""
        found = [each for gate in gates for each in self._store.list("slot", gate)]
        workers = {each.value["worker"] for each in found} - {self._log.worker}
        now = time.time()  # leases go by the wall clock
        dead = {each for each in workers if not self._log.journal.is_alive(each, now)}
        for each in found:
            if each.value["worker"] in dead:
                self._store.drop("slot", each.id)
        return [each for each in found if each.value["worker"] not in dead]

    def _is_free(self, limits: Iterable[tuple[str, int]]) -> bool:
        taken = {gate: sum(each.value["taken"] for each in self._store.list("slot", gate)) for gate, _ in limits}
        return all(taken[gate] < limit for gate, limit in limits)

    async def _when_writable(self, run: RunScheduler, act: Callable[[], Awaitable[T]]) -> T:
        """Write as soon as the journal takes it."""
        while True:
            try:
                return await act()
            except JournalError as error:
                logger.warning("a slot waits to be written: %s", error)
                await run.pause(TROUBLE_SECONDS)
