"""Mutants of C03 to C07: things forgotten, remembered wrongly, or done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.journal import NewRun, RunRow
from durably.backends.replay.steps import _RETRY, Execution
from durably.core import Event, RunStatus
from durably.core.attempts import Body, run_body
from durably.core.history import Kind, StepRecord
from durably.core.ids import new_id
from durably.core.replay import Recorded
from durably.core.serialization import codec_for
from durably.core.step_keys import Scope
from durably.core.steps import StepInfo
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C03")
class CommittedBodiesRunAgain(Execution):
    """A replay runs bodies whose record is there."""

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super()._take(scope, key, kind, asked)
        return None if record is not None and record.final and kind == "step" else record


@mutant("C03")
class AcknowledgeBeforeCommit(Execution):
    """The caller gets the value of a step at once; the record is written along with the next one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._late: list[tuple[Scope, StepRecord]] = []

    async def _settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        if kind != "step":
            return await super()._settled(scope, key, kind, asked, output, **fields)
        self._late.append((scope, self._record(key, kind, "completed", input=asked, output=output, **fields)))
        await self._pass("after_commit", key)
        return None

    async def _append(
        self,
        scope: Scope,
        record: StepRecord,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
        status: RunStatus | None = None,
    ) -> StepRecord:
        while self._late:
            owner, late = self._late.pop(0)
            await super()._append(owner, replace(late, seq=self._seq))
        return await super()._append(scope, replace(record, seq=self._seq), runs, events, cancel, status)


@mutant("C03")
class FailedFunctionsStartOver(Execution):
    """When a function's own code has failed, its steps run again."""

    def __init__(self, host: Any, function: Any, row: RunRow, records: Sequence[StepRecord]) -> None:
        super().__init__(host, function, row, records)
        if any(not record.key and record.status == "retrying" for record in records):
            self._recorded = Recorded([])


@mutant("C03")
class RecoveryDropsTheLastRecord(MemoryJournal):
    """Taking up a run after a crash cuts off its last record, as if it were torn."""

    def _take(self, row: RunRow) -> None:
        if len(self._records[row.id]) > 1:
            self._records[row.id].pop()
        super()._take(row)


@mutant("C04")
class FirstPassSeesTheRawValue(Execution):
    """The first pass gets the body's own value, the replay what was recorded of it."""

    async def _attempt_body(self, scope: Scope, body: Body, attempt: int, asked: str) -> Any:
        kept: list[Any] = []

        async def fn(*args: Any) -> Any:
            value = body.fn(*args)
            kept.append(await value if hasattr(value, "__await__") else value)
            return kept[-1]

        outcome = await super()._attempt_body(scope, replace(body, fn=fn), attempt, asked)
        return outcome if outcome is _RETRY else kept[-1]


@mutant("C04")
class TypesAreLost(Execution):
    """Values come back as plain JSON, whatever the body says it returns."""

    async def _run(self, scope: Scope, body: Body) -> Any:
        return await super()._run(scope, replace(body, codec=codec_for(Any)))


@mutant("C04")
class LossySerializer(Execution):
    """Text is recorded as ASCII, and what does not fit is dropped."""

    async def _settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        output = output.encode("ascii", "ignore").decode()
        await super()._settled(scope, key, kind, asked, output, **fields)


@mutant("C05")
class AttemptsStartAtOneAfterACrash(Execution):
    """The number of an attempt forgets the attempts that were cut off."""

    def _attempt(self, scope: Scope, key: str) -> int:
        return 1


@mutant("C05")
class BodiesRunTwice(Execution):
    """Every body runs twice and the second value counts."""

    async def _attempt_body(self, scope: Scope, body: Body, attempt: int, asked: str) -> Any:
        async def fn(*args: Any) -> Any:
            values = []
            for _ in range(2):
                value = body.fn(*args)
                values.append(await value if hasattr(value, "__await__") else value)
            return values[-1]

        return await super()._attempt_body(scope, replace(body, fn=fn), attempt, asked)


@mutant("C05")
class CommitBeforeEffect(Execution):
    """A step is recorded as done, then its body runs."""

    async def _attempt_body(self, scope: Scope, body: Body, attempt: int, asked: str) -> Any:
        host, key = self._host, body.key
        await self._settled(scope, key, "step", asked, "null", attempt=attempt)
        info = StepInfo(self.row.id, key, attempt, host.resources, None)
        return await run_body(body, info, probe=host.probe, function=self.function.id, threads=False)


@mutant("C06")
class NobodyGoesOn(MemoryBackend):
    """A worker that starts does not look for unfinished runs."""

    def _claim(self) -> None:
        pass


@mutant("C06")
class CrashesAreFailures(MemoryBackend):
    """A run that was taken up twice is given up as failed."""

    async def _execute(self, execution: Any, function: Any, row: RunRow, records: Any, failures: int) -> bool:
        if row.crashes:
            error = RuntimeError("the worker died")
            return await self._function_failed(execution, function, row, records[0], 10**6, error)
        return await super()._execute(execution, function, row, records, failures)


@mutant("C06")
class StopThrowsAwayRunningBodies(MemoryBackend):
    """An orderly stop cuts off the bodies that are running."""

    async def _wait_for_tasks(self) -> bool:
        self.grace = 0.0
        return await super()._wait_for_tasks()


@mutant("C07")
class LogLinesOnReplay(Execution):
    """Code that is replayed logs again."""

    @property
    def replaying(self) -> bool:
        return False


@mutant("C07")
class ReplayWritesRecords(Execution):
    """A replayed step is written to the journal once more."""

    async def _take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        record = await super()._take(scope, key, kind, asked)
        if record is not None and record.final:
            await self._append(scope, replace(record, seq=self._seq))
        return record


@mutant("C07")
class ReplaySendsEventsAgain(Execution):
    """A replayed send_event hands over its events again, under new ids."""

    async def _send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        if not self._recorded.exhausted(scope):
            backend: Any = self._host
            await backend.send(*[event.model_copy(update={"id": new_id()}) for event in events])
        return await super()._send_event(scope, key, events)


@mutant("C07")
class PrefixRewritten(MemoryJournal):
    """Taking up a run writes its records anew, with the time of the recovery."""

    def _take(self, row: RunRow) -> None:
        records = self._records[row.id]
        records[:] = [replace(record, at=self.latest) for record in records]
        super()._take(row)
