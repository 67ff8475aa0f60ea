"""The records of runs: written through one log a worker, which tells those who act on what changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, TypeVar

from durably.backends.replay.crash_watch import CrashWatch
from durably.backends.replay.early_events import sign_on
from durably.backends.replay.journal import Changes, Journal, NewRun, RunRow, Subscription
from durably.backends.replay.repair import fork, resume, stick
from durably.backends.replay.scheduler import RunScheduler
from durably.core import Event, Function
from durably.core.attempts import Environment
from durably.core.cause import Cause
from durably.core.errors import (
    CancelSignal,
    JournalBusyError,
    JournalError,
    StaleRunError,
    SuspendSignal,
    error_to_json,
)
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.replay import Recorded, patch_record
from durably.core.run_view import RunStatus
from durably.core.step_keys import Scope

__all__ = ["Log", "RunRecords"]

logger = logging.getLogger("durably")

T = TypeVar("T")

FIRST_DELAY, LAST_DELAY = 0.1, 3.2
"""Seconds between tries to write a record that the journal refused; they double, up to the second."""


class Log:
    """A journal as one worker writes to it.

    Args:
        journal: The storage.
        worker: The worker's id.
        functions: What it serves: new runs of these are its own.
        environment: Masks secrets in events.

    Attributes:
        crash: What the worker died of: nothing is written after that. ``None`` while it lives.
        takes_runs: Whether this worker takes what it creates; otherwise new runs are left for any worker.
    """

    def __init__(
        self, journal: Journal, worker: str, functions: Mapping[str, Function[Any, Any]], environment: Environment
    ) -> None:
        self.journal = journal
        self.worker = worker
        self.crash: BaseException | None = None
        self.takes_runs: Callable[[], bool] = lambda: True
        self._functions = functions
        self._environment = environment
        self._listeners: list[Callable[[Changes], None]] = []

    def subscribe(self, listener: Callable[[Changes], None]) -> None:
        """Call back with what each transaction changed besides its own record."""
        self._listeners.append(listener)

    def check_alive(self) -> None:
        """Raise what the worker died of, if it did."""
        if self.crash is not None:
            raise self.crash

    @property
    def _served(self) -> Collection[str]:
        """The functions whose new runs are its own."""
        return self._functions if self.takes_runs() else ()

    def append(
        self,
        record: StepRecord,
        fence: int,
        *,
        status: RunStatus | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
    ) -> None:
        """Append a record, and in the same transaction what it is about. See :meth:`Journal.commit`."""
        self.check_alive()
        if not (status or runs or events or cancel):
            self.journal.append(record, fence)  # most steps: one statement, and nothing to tell anybody
            return
        changes = self.journal.commit(
            record,
            fence,
            worker=self.worker,
            served=self._served,
            status=status,
            runs=runs,
            events=self.redacted(events),
            cancel=cancel,
        )
        self.tell(changes)

    def sign_on(self, subscriptions: Sequence[Subscription], now: float, memory: float) -> None:
        """Register this worker's functions. See :func:`durably.backends.replay.early_events.sign_on`."""
        self.check_alive()
        self.tell(sign_on(self.journal, subscriptions, now=now, memory=memory))

    def create(self, new: NewRun, now: float) -> RunRow:
        """Create a run, or find the one that has its id."""
        self.check_alive()
        worker = self.worker if new.function in self._served else None
        row, changes = self.journal.create(new, worker=worker, now=now)
        self.tell(changes)
        return row

    def resume(self, run_id: str, now: float) -> None:
        """Take up a failed run again. See :func:`durably.backends.replay.repair.resume`."""
        self.check_alive()
        resume(self.journal, run_id, now)

    def fork(self, run_id: str, after: str, new: NewRun, now: float) -> RunRow:
        """Create a run that begins with the records of another. See :func:`durably.backends.replay.repair.fork`."""
        self.check_alive()
        worker = self.worker if new.function in self._served else None
        row, changes = fork(self.journal, run_id, after, new, worker=worker, now=now)
        self.tell(changes)
        return row

    def stick(self, run_id: str, fence: int, record: StepRecord | None) -> None:
        """Leave a run whose code does not fit. See :func:`durably.backends.replay.repair.stick`."""
        self.check_alive()
        stick(self.journal, run_id, fence, record)

    def cancel(self, run_id: str, now: float) -> None:
        """Cancel a live run, and the live runs it waits for."""
        self.check_alive()
        self.tell(self.journal.cancel(run_id, now))

    def publish(self, events: Sequence[Event], now: float) -> None:
        """Receive events from outside."""
        self.check_alive()
        events = self.redacted(events)
        self.tell(self.journal.publish(events, worker=self.worker, served=self._served, now=now))

    def deliver(self, now: float) -> None:
        """Deliver the scheduled events that are due."""
        self.check_alive()
        self.tell(self.journal.deliver(worker=self.worker, served=self._served, now=now))

    def redacted(self, events: Iterable[Event]) -> list[Event]:
        """Events without secrets."""
        return [Event.model_validate_json(self._environment.redactor.text(event.model_dump_json())) for event in events]

    def tell(self, changes: Changes) -> None:
        """Let all who listen act on what a transaction changed."""
        for listener in self._listeners:
            listener(changes)


class RunRecords:
    """The records of one run, during one pass of its code.

    Args:
        log: Where they are written.
        environment: Masks secrets in errors.
        row: The run, as it was claimed.
        records: What it recorded so far.
        scheduler: Waits while the journal refuses, and is told when the run is lost.

    Attributes:
        cause: The event that started the run, as JSON text.
        recorded: What the code is compared with.
        stale: Whether another worker owns the run now.
        watch: What its crashes are put down to.
    """

    def __init__(
        self,
        log: Log,
        environment: Environment,
        row: RunRow,
        records: Sequence[StepRecord],
        scheduler: RunScheduler,
    ) -> None:
        self.row = row
        self.cause = records[0].output or ""
        self.recorded = Recorded(records)
        self.stale = False
        self.watch = CrashWatch(log.journal, row, records)
        self._log = log
        self._environment = environment
        self._scheduler = scheduler
        self._clock = scheduler.scheduler.clock
        self._seq = len(records)
        self._last = records[-1]
        self._decided: list[StepRecord] = []

    def patched(self, scope: Scope, patch_id: str) -> bool:
        """Whether the code of a scope goes by a patch; what is decided now is written along with the next record."""
        return self.recorded.patched(scope, patch_id, lambda answer: self._decide(patch_id, answer))

    def _decide(self, patch_id: str, answer: bool) -> StepRecord:
        now = round(self._clock.now(), 3)
        self._decided.append(patch_record(self.row.id, self._seq, patch_id, answer, now))
        return self._decided[-1]

    @cached_property
    def began_by(self) -> Cause:
        """What began the run, for observers."""
        return Cause.of(self.cause)

    def traceparent(self, key: str) -> str | None:
        """The span of a step, for what it begins; of the run, if the key is empty."""
        observers = self._environment.observers
        return observers.traceparent(self.row.id, key, self.began_by) if observers.traces else None

    @property
    def count(self) -> int:
        """How many records the run has."""
        return self._seq

    def attempt(self, scope: Scope, key: str) -> int:
        """The number of the next execution: one more than the failures and the crashes that may have cut one off."""
        # A crash may have cut this step off only if it came when the step was reachable: after the last record
        # before it in the code.
        crashes = len([count for count in self.row.crashes if count >= scope.window])
        return 1 + self.recorded.all_failures(key) + crashes

    async def commit(
        self,
        scope: Scope,
        key: str,
        kind: Kind,
        status: RecordStatus,
        *,
        started: float | None = None,
        error: Exception | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
        **fields: Any,
    ) -> StepRecord:
        """Write one record of a step, and in the same transaction what it is about.

        Args:
            scope: Where the step stands.
            key: Its key.
            kind: What is recorded.
            status: See :class:`~durably.core.history.StepRecord`.
            started: When the step, or this attempt, began; seconds since 1970.
            error: Why it failed.
            runs: Runs to create.
            events: Events to send.
            cancel: A run to cancel.
            fields: Further fields of the record.

        Raises:
            SuspendSignal: If another worker owns the run now.
            CancelSignal: If the run was cancelled.
        """
        if error is not None:
            fields["error"] = error_to_json(error, self._environment.redactor.text)
        record = self.record(key, kind, status, started, **fields)
        return await self.append(scope, record, runs=runs, events=events, cancel=cancel)

    async def finish(
        self,
        scope: Scope,
        status: Literal["completed", "failed"],
        started: float,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
        runs: Sequence[NewRun] = (),
    ) -> None:
        """Write how the run ended."""
        name = self.row.function
        record = self.record("", "run", status, started, name=name, output=output, error=error)
        await self.append(scope, record, runs=runs, status=RunStatus(status))

    async def retry_run(self, scope: Scope, attempt: int, error: dict[str, Any], due: float) -> None:
        """Write that the code itself failed and runs again at a moment."""
        name = self.row.function
        record = self.record("", "run", "retrying", None, name=name, attempt=attempt, error=error, due=due)
        await self.append(scope, record)

    async def stick(self, error: dict[str, Any]) -> None:
        """Leave the run to workers whose code fits it, with what does not fit here.

        Raises:
            SuspendSignal: If another worker owns the run now.
        """
        self._decided.clear()  # by code that does not fit
        record = self.record("", "run", "stuck", None, name=self.row.function, error=error)
        # Another worker may have recorded the same: each that is started with this code finds it once.
        known = (self._last.status, self._last.error) == ("stuck", error)
        await self._insist("run", lambda: self._log.stick(self.row.id, self.row.fence, None if known else record))

    async def append(
        self,
        scope: Scope,
        record: StepRecord,
        *,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
        status: RunStatus | None = None,
    ) -> StepRecord:
        """Write a record as the run's next one; see :meth:`commit`."""

        def write() -> StepRecord:
            while self._decided:  # the code behind a patch has recorded nothing before its answer is
                self._log.append(replace(self._decided[0], seq=self._seq), self.row.fence)
                self._decided.pop(0)
                self._seq += 1
            numbered = replace(record, seq=self._seq) if record.seq != self._seq else record
            self._log.append(numbered, self.row.fence, status=status, runs=runs, events=events, cancel=cancel)
            return self._appended(scope, numbered)

        return await self._insist(record.key or "run", write)

    async def _insist(self, what: str, write: Callable[[], T]) -> T:
        """Write something, as often as the journal refuses it for now."""
        delay = FIRST_DELAY
        # A pass that is only suspended still records what its bodies did; a cancelled run takes nothing more.
        while self._scheduler.signal is not CancelSignal:
            try:
                return write()
            except StaleRunError as error:
                raise self._lost(error) from error
            except JournalError as error:
                # What the body did is in hand here and nowhere else: it waits, rather than have the body run again.
                # Of a lock that is held long the storage speaks itself: most are free again at once.
                if delay == FIRST_DELAY and not isinstance(error, JournalBusyError):
                    logger.warning("%r of run %s waits to be recorded: %s", what, self.row.id, error)
                await self._scheduler.pause(delay)
                delay = min(2 * delay, LAST_DELAY)
        raise CancelSignal

    def _appended(self, scope: Scope, record: StepRecord) -> StepRecord:
        self._seq += 1
        if self.watch.suspected:
            self.watch.progressed()
        if record.status == "retrying":
            if record.key:
                self.recorded.add_failure(record.key)
        elif record.status != "started":
            scope.window = self._seq
        observers = self._environment.observers
        if observers.steps or record.status != "completed" or not record.key:
            observers.tell_of(record, self.row.function, self.began_by)
        return record

    def lose(self) -> None:
        """Note that another worker owns the run."""
        self._lost(StaleRunError(run_id=self.row.id, fence=self.row.fence))

    def _lost(self, error: StaleRunError) -> BaseException:
        self.stale = True
        row = self._log.journal.get(self.row.id)
        if row is not None and row.status is RunStatus.CANCELLED:  # by another worker; nobody else goes on with it
            self._scheduler.interrupt(CancelSignal)
            return CancelSignal()
        logger.warning("%s; this worker drops the run", error)
        signal = self._scheduler.signal or SuspendSignal
        self._scheduler.interrupt(signal)
        return signal()

    def record(self, key: str, kind: Kind, status: RecordStatus, started: float | None, **fields: Any) -> StepRecord:
        """The run's next record, not written yet."""
        now = self._clock.now()
        took = 0.0 if started is None else max(0.0, now - started)
        return StepRecord(self.row.id, self._seq, key, kind, status, at=round(now, 3), took=took, **fields)
