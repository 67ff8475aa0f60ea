"""Mutants of C19 to C22: time, waiting, cancelling, singletons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.host import Waiting
from durably.backends.replay.journal import Changes, NewRun, RunRow, Subscription
from durably.backends.replay.steps import Execution
from durably.core import Event, Singleton
from durably.core.errors import CancelSignal, Signal
from durably.core.history import Kind, StepRecord
from durably.core.step_keys import Scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C19")
class SleepRestartedAfterACrash(Execution):
    """A sleep that was cut off starts from its beginning."""

    _naps: dict[str, float | None]

    async def _sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        self._naps = {**getattr(self, "_naps", {}), key: duration}
        await super()._sleep(scope, key, duration, until)

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super()._take(scope, key, kind, asked)
        nap = self._naps.get(key) if kind == "sleep" else None
        return record if record is None or nap is None else replace(record, due=self._host.clock.now() + nap)


@mutant("C19")
class SleepEndsEarly(Execution):
    """A sleep is over after half its time."""

    async def _sleep_until(self, due: float) -> None:
        now = self._host.clock.now()
        await super()._sleep_until(now + (due - now) / 2)


@mutant("C20")
class WaitSeesEarlierEvents(MemoryJournal):
    """An event from before the wait ends it."""

    def cursor(self) -> int:
        return 0


@mutant("C20")
class MatchIgnored(Execution):
    """Any event of the name ends a wait."""

    async def _wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        return await super()._wait_for_event(scope, key, name, {}, timeout)


@mutant("C20")
class EventMissedWhileDown(MemoryBackend):
    """Only events that arrive while the worker is up end a wait."""

    def find_event(self, waiting: Waiting) -> Event | None:
        return None


@mutant("C20")
class WaitTimesOutEarly(Execution):
    """A wait gives up after half its time."""

    async def _wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        half = None if timeout is None else timeout / 2
        return await super()._wait_for_event(scope, key, name, match, half)


@mutant("C20")
class OneWaiterGetsTheEvent(MemoryBackend):
    """Of several runs that wait for an event one gets it."""

    def _apply(self, changes: Changes) -> None:
        wanted = [each for each in self._waiting if any(each.wants(r.event, r.seq, r.at) for r in changes.received)]
        for waiting in wanted[1:]:
            waiting.cursor = self.journal.cursor()
        super()._apply(changes)


@mutant("C21")
class CancelIgnored(MemoryBackend):
    """Cancelling does nothing."""

    async def _cancel(self, run_id: str) -> None:
        return


@mutant("C21")
class ChildrenSurvive(MemoryJournal):
    """The children of a cancelled run go on."""

    def _cancel_children(self, run_id: str, now: float, changes: Changes) -> None:
        return


class _Unending(MemoryJournal):
    def _append(self, record: StepRecord, fence: int) -> None:
        self._records[record.run_id].append(replace(record, seq=len(self._records[record.run_id])))


class _Deaf(Execution):
    def interrupt(self, signal: type[Signal]) -> None:
        if signal is not CancelSignal:
            super().interrupt(signal)


@mutant("C21")
class CancelledRunsGoOn(MemoryBackend):
    """A cancelled run is called so, and goes on to its end."""

    execution = _Deaf
    storage = _Unending


@mutant("C21")
class EndedRunsCanBeCancelled(MemoryJournal):
    """Cancelling a completed run makes it a cancelled one."""

    def _cancel(self, run_id: str, now: float, changes: Changes) -> None:
        row = self._runs[run_id]
        if row.status.final:
            seq = self.count(run_id)
            self._records[run_id].append(StepRecord(run_id, seq, "", "run", "cancelled", name=row.function, at=now))
        super()._cancel(run_id, now, changes)


@mutant("C22")
class SingletonIgnored(MemoryBackend):
    """Two runs of one key live side by side."""

    def singleton_of(self, function: str) -> Singleton | None:
        return None


@mutant("C22")
class SingletonIgnoredForEvents(MemoryJournal):
    """Runs that events start do not mind the rule."""

    def _subscribers(self, event: str) -> Sequence[Subscription]:
        return [replace(each, singleton=None) for each in super()._subscribers(event)]


@mutant("C22")
class SkipCancels(MemoryJournal):
    """The mode skip cancels the older run, as the mode cancel does."""

    def _create(self, new: NewRun, worker: str | None, now: float, changes: Changes) -> RunRow:
        if new.singleton is not None:
            new = replace(new, singleton=Singleton(new.singleton.key, mode="cancel"))
        return super()._create(new, worker, now, changes)


@mutant("C22")
class OneRunForAllKeys(MemoryJournal):
    """The key of a singleton is not looked at."""

    def _create(self, new: NewRun, worker: str | None, now: float, changes: Changes) -> RunRow:
        if new.singleton is not None:
            new = replace(new, singleton=Singleton("", mode=new.singleton.mode))
        return super()._create(new, worker, now, changes)
