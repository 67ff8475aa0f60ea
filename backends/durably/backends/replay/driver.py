"""Driving one run: its code over its records, again and again, until it ends."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from durably.backends.replay.journal import Changes, NewRun, RunRow
from durably.backends.replay.scheduler import Waits
from durably.backends.replay.steps import Execution
from durably.core import Context, DurablyError, Event, Function, NonDeterminismError, NonRetriableError, Singleton
from durably.core.attempts import pass_point
from durably.core.backend import RunStatus
from durably.core.errors import (
    CancelSignal,
    JournalCorruptError,
    JournalError,
    Signal,
    SuspendSignal,
    error_to_json,
    is_retriable,
)
from durably.core.functions import FailedRun
from durably.core.history import StepRecord
from durably.core.ids import derive_id, new_id
from durably.core.run_logger import RunLogger
from durably.core.steps import Point

__all__ = ["Driver"]

logger = logging.getLogger("durably")

TROUBLE_SECONDS = 1.0


class Driver(Waits):
    """The part of the replay engine that runs functions.

    Args:
        functions: See :class:`~durably.backends.replay.backend.ReplayBackend`, as for the others.
        threads: Whether sync bodies run in threads.
        seed: Fixes the order of concurrent branches, or ``None``.
        evict: Whether a run is replayed from the start after each step.
        max_payload_bytes: The largest value a step may return, or ``None``.
        options: See :class:`~durably.backends.replay.scheduler.Waits`.
    """

    execution: ClassVar[type[Execution]] = Execution
    """What drives a run's code over its records."""

    def __init__(
        self,
        functions: Sequence[Function[Any, Any]],
        *,
        threads: bool,
        seed: int | None,
        evict: bool,
        max_payload_bytes: int | None,
        **options: Any,
    ) -> None:
        super().__init__(functions, **options)
        self.threads = threads
        self.evict = evict
        self.max_payload_bytes = max_payload_bytes or self.capabilities.max_payload_bytes
        self.worker = new_id()
        self._seed = seed
        self._stopping = False
        self._live: dict[str, Execution] = {}

    @abstractmethod
    def crash(self, signal: BaseException) -> None:
        """Die as a process does."""

    @abstractmethod
    def _apply(self, changes: Changes) -> None:
        """Act on what a transaction changed."""

    async def _drive(self, row: RunRow) -> None:
        """Run a function's code over its records until it ends, as often as that takes."""
        again: RunRow | None = row
        try:
            while again is not None:
                again = await self._pass_over(again)
        except CancelSignal:
            self._ended(row.id)
        except SuspendSignal:
            pass
        except Signal as signal:
            self.crash(signal)

    async def _pass_over(self, row: RunRow) -> RunRow | None:
        """One pass; the run for another one, or ``None`` once it has ended."""
        function = self.functions[row.function]
        try:
            records = self.journal.records(row.id)
        except JournalCorruptError as error:
            self._damaged(row, error)
            return None
        except JournalError as error:
            logger.warning("run %s waits: %s", row.id, error)
            await self._pause(TROUBLE_SECONDS)
            return row
        execution = self._live[row.id] = self.execution(self, function, row, records)
        attempts = sum(1 for record in records if not record.key and record.status == "retrying")
        due = next((record.due for record in reversed(records) if not record.key and record.due is not None), None)
        try:
            if due is not None:
                await execution._sleep_until(due)
            await self._pass("before_first", row)
            ended = await self._execute(execution, function, row, records, attempts)
        except SuspendSignal:
            if self._stopping or execution.stale or not self.evict:
                raise
            return row
        return None if ended else row

    async def _pause(self, seconds: float) -> None:
        await self.wait(asyncio.get_running_loop().create_future(), self.clock.now() + seconds)
        if self._stopping:
            raise SuspendSignal

    def _damaged(self, row: RunRow, error: JournalCorruptError) -> None:
        logger.error("run %s of %r fails: %s", row.id, row.function, error)
        seq, now = self.journal.count(row.id), self.clock.now()
        last = StepRecord(row.id, seq, "", "run", "failed", name=row.function, error=error_to_json(error), at=now)
        self.commit(last, row.fence, status=RunStatus.FAILED)

    async def _execute(
        self,
        execution: Execution,
        function: Function[Any, Any],
        row: RunRow,
        records: Sequence[StepRecord],
        failures: int,
    ) -> bool:
        started = records[0].at
        try:
            event = Event.model_validate_json(records[0].output or "")
            context = Context(
                step=execution,
                event=event,
                input=function.input.validate(event.data, what=f"the input of {function.id!r}"),
                run_id=row.id,
                attempt=failures + 1,
                logger=RunLogger(function.id, row.id, self.redactor, lambda: execution.replaying),
                resources=self.resources,
            )
            value = await function.handler(context)
            execution.check_end()
            output = self.redactor.text(function.output.encode(value, step="", limit=self.max_payload_bytes))
            function.output.decode(output, step="")
        except (Signal, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            # The code may have wrapped a refusal, as a gather does, or swallowed it.
            failure = execution.refusal or _as_exception(error)
            return await self._function_failed(execution, function, row, records[0], failures + 1, failure)
        await self._pass("before_result", row)
        await execution.finish("completed", started, output=output)
        await self._pass("after_result", row)
        return True

    async def _function_failed(
        self,
        execution: Execution,
        function: Function[Any, Any],
        row: RunRow,
        first: StepRecord,
        failures: int,
        error: Exception,
    ) -> bool:
        data = self.redactor.data(error_to_json(error))
        if failures <= function.retries and is_retriable(error):
            delay = function.retry_policy.next_delay(error, failures, derive_id("run", row.id, ""))
            await execution.retry_run(failures, data, self.clock.now() + delay)
            await self._pass("backing_off", row)
            return False
        if not isinstance(error, DurablyError) or isinstance(error, NonDeterminismError):
            logger.error("run %s of %r failed: %s", row.id, function.id, self.redactor.text(str(error)))
        await self._pass("before_result", row)
        runs = []
        if function.on_failure is not None:
            event = Event.model_validate_json(first.output or "")
            failed = FailedRun(run_id=row.id, function=function.id, event=event, error=data)
            told = Event("durably/function.failed", failed.model_dump(mode="json"), id=derive_id("failure", row.id, ""))
            runs = [NewRun(id=told.id or "", function=function.on_failure.id, event=told.model_dump_json())]
        await execution.finish("failed", first.at, error=data, runs=runs)
        await self._pass("after_result", row)
        return True

    async def _pass(self, name: str, row: RunRow) -> None:
        if self.probe is not None:
            await pass_point(self.probe, Point(name, row.function, row.id, ""))

    def commit(
        self,
        record: StepRecord,
        fence: int,
        *,
        status: RunStatus | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
    ) -> None:
        """Append a record and act on what that changed."""
        self._alive()
        if not (status or runs or events or cancel):
            self.journal.append(record, fence)
            return
        changes = self.journal.commit(
            record,
            fence,
            worker=self.worker,
            served=self.functions,
            status=status,
            runs=runs,
            events=[self._redacted(event) for event in events],
            cancel=cancel,
        )
        if status is not None:
            self._ended(record.run_id)
        self._apply(changes)

    def singleton_of(self, function: str) -> Singleton | None:
        """The singleton rule of a function this worker serves."""
        known = self.functions.get(function)
        return None if known is None else known.singleton

    def turns(self, key: str) -> int:
        """How often a step of a branch lets the others go first, as the seed says."""
        return 0 if self._seed is None else random.Random(f"{self._seed}/{key}").randrange(4)

    def _redacted(self, event: Event) -> Event:
        return Event.model_validate_json(self.redactor.text(event.model_dump_json()))

    def _alive(self) -> None:
        if self._crash is not None:
            raise self._crash


def _is_cancelled() -> bool:
    """Whether it is this task that is being cancelled, not something that the user's code awaited."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def _as_exception(error: BaseException) -> Exception:
    """An error that may end a run but must not end the worker."""
    return error if isinstance(error, Exception) else NonRetriableError(f"{type(error).__name__}: {error}")
