"""Mutants of C28: observers that are told again, or that do harm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend
from durably.backends.replay.driver import Driver
from durably.backends.replay.records import RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core.history import Kind, StepRecord
from durably.core.observer import AttemptFailed, Observers, StepBegan, happenings
from durably.core.step_keys import Scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C28")
class ToldAgainInReplay(ReplaySteps):
    """A recorded step that is replayed is told of once more."""

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super().take(scope, key, kind, asked)
        if record is not None and record.final:
            self.host.environment.observers.tell_of(record, self.function.id)
        return record


@mutant("C28")
class EachPassStartsTheRun(Driver):
    """Each pass of a run's code is told of as the start of the run."""

    def _begin(self, row: Any, records: Any, scheduler: Any) -> Any:
        if len(records) > 1:
            self.host.environment.observers.tell_of(records[0], row.function)
        return super()._begin(row, records, scheduler)


class _Fragile(Observers):
    def _call(self, observer: Any, method: Any, argument: Any) -> Any:
        return method(argument)


@mutant("C28")
class FailingObserversFailTheRun(MemoryBackend):
    """What an observer raises comes out in the run."""

    def __init__(self, *args: Any, observers: Any = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.environment.observers = _Fragile(observers)


@mutant("C28")
class ToldBeforeItIsCommitted(RunRecords):
    """What a step came to is told before its record is written, whether that succeeds or not."""

    async def append(self, scope: Scope, record: StepRecord, **options: Any) -> StepRecord:
        self._environment.observers.tell_of(record, self.row.function, self.began_by)
        return await super().append(scope, record, **options)

    def _appended(self, scope: Scope, record: StepRecord) -> None:
        observers, self._environment.observers = self._environment.observers, Observers()
        try:
            super()._appended(scope, record)
        finally:
            self._environment.observers = observers


class _Backwards(Observers):
    def tell_of(self, record: StepRecord, function: str, cause: Any = None) -> None:
        for event in reversed(list(happenings(record, function, cause))):
            if not (isinstance(event, StepBegan) and event.kind == "step"):
                self.tell(event)


@mutant("C28")
class ToldBackwards(MemoryBackend):
    """Of what one record says, the last is told first."""

    def __init__(self, *args: Any, observers: Any = (), **options: Any) -> None:
        super().__init__(*args, **options)
        now = self.environment.observers.now
        self.environment.observers = _Backwards(observers)
        self.environment.observers.now = now


@mutant("C28")
class DurationsAreMoments(RunRecords):
    """How long a step took is told as a moment."""

    def record(self, *args: Any, **fields: Any) -> StepRecord:
        made = super().record(*args, **fields)
        return replace(made, took=made.took and made.at)


class _Silent(Observers):
    def tell(self, event: Any) -> None:
        if not isinstance(event, AttemptFailed):
            super().tell(event)


@mutant("C28")
class FailedAttemptsAreNotTold(MemoryBackend):
    """An attempt that is tried again is told to nobody."""

    def __init__(self, *args: Any, observers: Any = (), **options: Any) -> None:
        super().__init__(*args, **options)
        now = self.environment.observers.now
        self.environment.observers = _Silent(observers)
        self.environment.observers.now = now
