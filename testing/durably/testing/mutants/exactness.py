"""Mutants that keep a clause but for one word of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.journal_types import Changes, NewRun
from durably.backends.replay.records import Log, RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event
from durably.core.errors import error_to_json
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.run_view import RunStatus
from durably.core.step_keys import Scope
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.15g}")
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return {name: _rounded(each) for name, each in value.items()} if isinstance(value, dict) else value


@mutant("C04")
class NumbersAreRounded(MemoryJournal):
    """Numbers are kept with fifteen digits."""

    def append(self, record: StepRecord, fence: int) -> None:
        if record.output is not None and record.kind == "step":
            record = replace(record, output=json.dumps(_rounded(json.loads(record.output))))
        super().append(record, fence)


@mutant("C04")
class KeysAreSorted(MemoryJournal):
    """The keys of an object are kept in the order of the alphabet."""

    def append(self, record: StepRecord, fence: int) -> None:
        if record.output is not None and record.kind == "step":
            record = replace(record, output=json.dumps(json.loads(record.output), sort_keys=True))
        super().append(record, fence)


@mutant("C17")
class EventNumbersAreRounded(Log):
    """The numbers in the data of an event are kept with fifteen digits."""

    def redacted(self, events: Any) -> list[Event]:
        return [each.model_copy(update={"data": _rounded(each.data)}) for each in super().redacted(events)]


@mutant("C20")
class OneConditionIsEnough(ReplaySteps):
    """Of a match with several conditions only the first is looked at."""

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        return await super().wait_for_event(scope, key, name, dict(list(match.items())[:1]), timeout)


@mutant("C20")
class TheLastConditionIsForgotten(ReplaySteps):
    """Of a match with several conditions the last is not looked at."""

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        kept = dict(list(match.items())[:-1]) if len(match) > 1 else match
        return await super().wait_for_event(scope, key, name, kept, timeout)


@mutant("C21")
class FailedRunsCanBeCancelled(MemoryJournal):
    """Cancelling a failed run makes it a cancelled one."""

    def end_cancelled(self, run_id: str, now: float, changes: Changes) -> None:
        row = self._runs[run_id]
        if row.status is RunStatus.FAILED:
            seq = self.count(run_id)
            self._records[run_id].append(StepRecord(run_id, seq, "", "run", "cancelled", name=row.function, at=now))
            self.set_status(run_id, RunStatus.CANCELLED, now)
            return
        super().end_cancelled(run_id, now, changes)


@mutant("C24")
class SecretsInAttemptsTriedAgain(RunRecords):
    """The error of an attempt that is tried again is recorded with the secrets it mentions."""

    async def commit(
        self,
        scope: Scope,
        key: str,
        kind: Kind,
        status: RecordStatus,
        *,
        error: Exception | None = None,
        **options: Any,
    ) -> StepRecord:
        if status == "retrying" and error is not None:
            options["error"], error = error_to_json(error), None
            record = self.record(key, kind, status, options.pop("started", None), **options)
            return await self.append(scope, record)
        return await super().commit(scope, key, kind, status, error=error, **options)


@mutant("C02")
class ChildrenByTheirStepAlone(ReplayHost):
    """The id of a child run is made from the key of its step, not from the run."""

    def new_run(self, run_id: str, function: str, event: str, parent: str | None = None) -> NewRun:
        return super().new_run(run_id if parent is None else f"child-of-{function}", function, event, parent)


@mutant("C22")
class KeysOfAllFunctions(MemoryJournal):
    """A singleton minds the runs of other functions that have the same key."""

    def live_singletons(self, function: str, singleton: str) -> Sequence[str]:
        return [row.id for row in self._runs.values() if row.singleton == singleton and not row.status.final]


@mutant("C31")
class AnswersHaveNoTime(MemoryBackend):
    """When an approval was given is not noted."""

    def now(self) -> float:
        return 0.0
