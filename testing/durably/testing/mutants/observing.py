"""Mutants of C28: observers that are told again, or that do harm."""

from __future__ import annotations

from typing import Any

from durably.backends.memory import MemoryBackend
from durably.backends.replay.driver import Driver
from durably.backends.replay.steps import ReplaySteps
from durably.core.history import Kind, StepRecord
from durably.core.observer import Observers
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
