"""Mutants of C19 to C22: time, waiting, cancelling, singletons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.driver import Driver
from durably.backends.replay.events import EventWaiter, EventWaiters
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.journal_types import Changes, NewRun, Received, RunRow, Subscription
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event, Singleton
from durably.core.attempts import StepCall
from durably.core.errors import CancelSignal, Signal
from durably.core.history import Kind, StepRecord
from durably.core.step_keys import KeyedSteps, Scope
from durably.testing.mutants.mutant import mutant, with_part

__all__: list[str] = []


@mutant("C19")
class SleepRestartedAfterACrash(ReplaySteps):
    """A sleep that was cut off starts from its beginning."""

    _naps: dict[str, float | None]

    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        self._naps = {**getattr(self, "_naps", {}), key: duration}
        await super().sleep(scope, key, duration, until)

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        nap = self._naps.get(key) if kind == "sleep" else None
        return record if record is None or nap is None else replace(record, due=self.clock.now() + nap)


@mutant("C19")
class SleepEndsEarly(ReplaySteps):
    """A sleep is over after half its time."""

    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        await super().sleep(scope, key, None if duration is None else duration / 2, until)


@mutant("C19")
class FarTimesAreNow(ReplaySteps):
    """A moment that 32 bits do not hold is taken for one that is past."""

    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        await super().sleep(scope, key, duration, 0.0 if until is not None and until >= 2**31 else until)


@mutant("C20")
class WaitSeesEarlierEvents(MemoryJournal):
    """An event from before the wait ends it."""

    def cursor(self) -> int:
        return 0


@mutant("C20")
class MatchIgnored(ReplaySteps):
    """Any event of the name ends a wait."""

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        return await super().wait_for_event(scope, key, name, {}, timeout)


class _PythonWaiter(EventWaiter):
    """It is found by the name of the event alone."""

    __slots__ = ("compared",)

    def __init__(self, waiter: EventWaiter) -> None:
        super().__init__(waiter.run_id, waiter.key, waiter.name, {}, waiter.cursor, waiter.due)
        self.compared = waiter.match

    def wants(self, received: Received) -> bool:
        equal = all(received.event.at(path) == value for path, value in self.compared.items())
        return equal and super().wants(received)


@mutant("C20")
class MatchTakesOneForTrue(ReplaySteps):
    """A wait compares as Python does: 1 is True, and what is not there is None."""

    async def _await_event(self, waiter: EventWaiter, asked: str) -> Event | None:
        return await super()._await_event(_PythonWaiter(waiter), asked)


@mutant("C20")
class EventMissedWhileDown(EventWaiters):
    """Only events that arrive while the worker is up end a wait."""

    def find(self, waiter: EventWaiter) -> Event | None:
        return None


@mutant("C20")
class WaitTimesOutEarly(ReplaySteps):
    """A wait gives up after half its time."""

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        half = None if timeout is None else timeout / 2
        return await super().wait_for_event(scope, key, name, match, half)


@mutant("C20")
class OneWaiterGetsTheEvent(EventWaiters):
    """Of several runs that wait for an event one gets it."""

    def deliver(self, received: Iterable[Received]) -> None:
        events = list(received)
        wanted = [each for each in self.waiting if any(map(each.wants, events))]
        for waiter in wanted[1:]:
            waiter.cursor = self.journal.cursor()
        super().deliver(events)


@mutant("C21")
class CancelIgnored(MemoryBackend):
    """Cancelling does nothing."""

    async def cancel(self, run_id: str) -> None:
        return


@mutant("C21")
class ChildrenSurvive(MemoryJournal):
    """The children of a cancelled run go on."""

    def cancel_children(self, run_id: str, now: float, changes: Changes) -> None:
        return


class _Unending(MemoryJournal):
    def append(self, record: StepRecord, fence: int) -> None:
        self._records[record.run_id].append(replace(record, seq=len(self._records[record.run_id])))


class _Deaf(Driver):
    def interrupt(self, run_id: str, signal: type[Signal]) -> None:
        if signal is not CancelSignal:
            super().interrupt(run_id, signal)


@mutant("C21")
class CancelledRunsGoOn(MemoryBackend):
    """A cancelled run is called so, and goes on to its end."""

    parts = with_part(_Deaf)
    storage = _Unending


@mutant("C21")
class NothingCalledOff(KeyedSteps):
    """A cancelled run leaves what it waited for at work."""

    @contextmanager
    def if_cancelled(self, fn: Callable[..., Any], *args: Any) -> Iterator[None]:
        yield


@mutant("C21")
class DoneIsCalledOff(KeyedSteps):
    """A cancelled run calls off what it is past, too."""

    @contextmanager
    def if_cancelled(self, fn: Callable[..., Any], *args: Any) -> Iterator[None]:
        self.to_call_off.append(StepCall.of("durably:cancelled", fn, args))
        yield


@mutant("C21")
class EndedRunsCanBeCancelled(MemoryJournal):
    """Cancelling a completed run makes it a cancelled one."""

    def end_cancelled(self, run_id: str, now: float, changes: Changes) -> None:
        row = self._runs[run_id]
        if row.status.final:
            seq = self.count(run_id)
            self._records[run_id].append(StepRecord(run_id, seq, "", "run", "cancelled", name=row.function, at=now))
        super().end_cancelled(run_id, now, changes)


@mutant("C22")
class SingletonIgnored(ReplayHost):
    """Two runs of one key live side by side."""

    def new_run(self, run_id: str, function: str, event: str, parent: str | None = None) -> NewRun:
        return replace(super().new_run(run_id, function, event, parent), singleton=None)


@mutant("C22")
class SingletonIgnoredForEvents(MemoryJournal):
    """Runs that events start do not mind the rule."""

    def subscribers(self, event: str) -> Sequence[Subscription]:
        return [replace(each, singleton=None) for each in super().subscribers(event)]


@mutant("C22")
class SkipCancels(MemoryJournal):
    """The mode skip cancels the older run, as the mode cancel does."""

    def add_run(self, new: NewRun, worker: str | None, now: float, changes: Changes) -> RunRow:
        if new.singleton is not None:
            new = replace(new, singleton=Singleton(new.singleton.key, mode="cancel"))
        return super().add_run(new, worker, now, changes)


@mutant("C22")
class OneRunForAllKeys(MemoryJournal):
    """The key of a singleton is not looked at."""

    def add_run(self, new: NewRun, worker: str | None, now: float, changes: Changes) -> RunRow:
        if new.singleton is not None:
            new = replace(new, singleton=Singleton("", mode=new.singleton.mode))
        return super().add_run(new, worker, now, changes)


@mutant("C20")
class TheLastEventCounts(EventWaiters):
    """Of several events that came while no worker was up, the last one ends the wait."""

    def find(self, waiter: EventWaiter) -> Event | None:
        found = [each.event for each in self.journal.events_since(waiter.cursor, waiter.name) if waiter.wants(each)]
        return found[-1] if found else None


@mutant("C20")
class WaitTimesOutLate(ReplaySteps):
    """A wait gives up long after its time."""

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        late = None if timeout is None else timeout * 10
        return await super().wait_for_event(scope, key, name, match, late)


@mutant("C21")
class CancelSpreads(MemoryJournal):
    """Cancelling a run cancels all others that nobody waits for."""

    def cancel_children(self, run_id: str, now: float, changes: Changes) -> None:
        super().cancel_children(run_id, now, changes)
        for row in list(self._runs.values()):
            if row.parent is None and row.function != "bystander":
                self.end_cancelled(row.id, now, changes)


class _DeafInBackOff(Driver):
    def interrupt(self, run_id: str, signal: type[Signal]) -> None:
        last = self.host.log.journal.records(run_id)[-2:-1]
        if signal is not CancelSignal or not last or last[0].status != "retrying":
            super().interrupt(run_id, signal)


@mutant("C21")
class CancelledRunsTryAgain(MemoryBackend):
    """A run that is cancelled while it waits for its next attempt makes that attempt."""

    parts = with_part(_DeafInBackOff)


@mutant("C22")
class CancelSkips(MemoryJournal):
    """The mode cancel drops the newer run, as the mode skip does."""

    def add_run(self, new: NewRun, worker: str | None, now: float, changes: Changes) -> RunRow:
        if new.singleton is not None and new.singleton.mode == "cancel":
            new = replace(new, singleton=Singleton(new.singleton.key, mode="skip"))
        return super().add_run(new, worker, now, changes)
