"""The records of runs: written through one log a worker, which tells those who act on what changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

from durably.backends.replay.crash_watch import CrashWatch
from durably.backends.replay.early_events import sign_on
from durably.backends.replay.journal import Journal, nothing
from durably.backends.replay.journal_types import Changes, NewRun, RunRow, Subscription
from durably.backends.replay.repair import fork, resume, stick
from durably.backends.replay.scheduler import RunScheduler, Scheduler
from durably.core import Event, Function
from durably.core.cause import Cause
from durably.core.environment import Environment
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
        scheduler: Knows whether anybody else has anything to do, and is told that something is being written.

    Attributes:
        crash: What the worker died of: nothing is written after that. ``None`` while it lives.
        placing: How many changes are being made that may give this worker a run.
        takes_runs: Whether this worker takes what it creates; otherwise new runs are left for any worker.
    """

    def __init__(
        self,
        journal: Journal,
        worker: str,
        functions: Mapping[str, Function[Any, Any]],
        environment: Environment,
        scheduler: Scheduler,
    ) -> None:
        self.journal = journal
        self.worker = worker
        self.crash: BaseException | None = None
        self.takes_runs: Callable[[], bool] = lambda: True
        self.placing = 0
        self._functions = functions
        self._environment = environment
        self._scheduler = scheduler
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

    def write(
        self,
        change: Callable[[], T],
        then: Callable[[T], None] = nothing,
        otherwise: Callable[[BaseException], None] | None = None,
    ) -> asyncio.Future[T]:
        """Make a change to the journal, unless the worker has died. See :meth:`Journal.write`."""
        if self.crash is not None:
            raise self.crash
        written = self.journal.write(change, then, otherwise, alone=self._scheduler.active <= 1)
        if not written.done():  # meanwhile something is being done: a virtual clock must not jump
            self._scheduler.began()
            written.add_done_callback(lambda _: self._scheduler.ended())
        return written

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn of the event loop; until then a virtual clock must not jump."""

        def call() -> None:
            try:
                callback()
            finally:
                self._scheduler.ended()

        self._scheduler.began()
        asyncio.get_running_loop().call_soon(call)

    def append(
        self,
        record: StepRecord,
        fence: int,
        then: Callable[[None], None],
        otherwise: Callable[[BaseException], None],
        *,
        status: RunStatus | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
    ) -> asyncio.Future[Any]:
        """Append a record, and in the same transaction what it is about. See :meth:`Journal.commit`."""
        if not (status or runs or events or cancel):  # most steps: one statement, and nothing to tell anybody
            return self.write(partial(self.journal.append, record, fence), then, otherwise)

        def told(changes: Changes) -> None:
            self.tell(changes)
            then(None)

        commit = partial(
            self.journal.commit,
            record,
            fence,
            worker=self.worker,
            served=self._served,
            status=status,
            runs=runs,
            events=self.redacted(events),
            cancel=cancel,
        )
        return self._placing(self.write(commit, told, otherwise))

    def sign_on(self, subscriptions: Sequence[Subscription], now: float, memory: float) -> asyncio.Future[Changes]:
        """Register this worker's functions. See :func:`durably.backends.replay.early_events.sign_on`."""
        return self.write(lambda: sign_on(self.journal, subscriptions, now=now, memory=memory), self.tell)

    def create(self, new: NewRun, now: float) -> asyncio.Future[tuple[RunRow, Changes]]:
        """Create a run, or find the one that has its id."""
        worker = self.worker if new.function in self._served else None
        return self._placing(self.write(lambda: self.journal.create(new, worker=worker, now=now), self._tell_second))

    def resume(self, run_id: str, now: float) -> asyncio.Future[None]:
        """Take up a failed run again. See :func:`durably.backends.replay.repair.resume`."""
        return self.write(lambda: resume(self.journal, run_id, now))

    def fork(self, run_id: str, after: str, new: NewRun, now: float) -> asyncio.Future[tuple[RunRow, Changes]]:
        """Create a run that begins with the records of another. See :func:`durably.backends.replay.repair.fork`."""
        worker = self.worker if new.function in self._served else None
        change = partial(fork, self.journal, run_id, after, new, worker=worker, now=now)
        return self._placing(self.write(change, self._tell_second))

    def stick(self, run_id: str, fence: int, record: StepRecord | None) -> asyncio.Future[None]:
        """Leave a run whose code does not fit. See :func:`durably.backends.replay.repair.stick`."""
        return self.write(lambda: stick(self.journal, run_id, fence, record))

    def cancel(self, run_id: str, now: float) -> asyncio.Future[Changes]:
        """Cancel a live run, and the live runs it waits for."""
        return self.write(lambda: self.journal.cancel(run_id, now), self.tell)

    def publish(self, events: Sequence[Event], now: float) -> asyncio.Future[Changes]:
        """Receive events from outside."""
        receive = partial(self.journal.publish, self.redacted(events), worker=self.worker, served=self._served, now=now)
        return self._placing(self.write(receive, self.tell))

    def deliver(
        self, now: float, then: Callable[[], None], otherwise: Callable[[BaseException], None]
    ) -> asyncio.Future[Changes]:
        """Deliver the scheduled events that are due."""

        def told(changes: Changes) -> None:
            self.tell(changes)
            then()

        deliver = partial(self.journal.deliver, worker=self.worker, served=self._served, now=now)
        return self._placing(self.write(deliver, told, otherwise))

    def _placing(self, written: asyncio.Future[T]) -> asyncio.Future[T]:
        """Note that a change that is being made may give this worker a run."""
        if not written.done():
            self.placing += 1
            written.add_done_callback(self._placed)
        return written

    def _placed(self, written: asyncio.Future[Any]) -> None:
        self.placing -= 1

    def _tell_second(self, made: tuple[RunRow, Changes]) -> None:
        self.tell(made[1])

    def redacted(self, events: Iterable[Event]) -> list[Event]:
        """Events without secrets."""
        return [Event.model_validate_json(self._environment.redactor.text(event.model_dump_json())) for event in events]

    def tell(self, changes: Changes) -> None:
        """Let all who listen act on what a transaction changed, unless the worker has died meanwhile."""
        for listener in self._listeners if self.crash is None else ():
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
        self.watch = CrashWatch(log, row, records)
        self._log = log
        self._environment = environment
        self._scheduler = scheduler
        self._clock = scheduler.scheduler.clock
        self._seq = len(records)
        self._flying = 0
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
        failures = self.recorded.all_failures(key)
        if not self.row.crashes:
            return 1 + failures
        # A crash may have cut this step off only if it came when the step was reachable: after the last record
        # before it in the code.
        return 1 + failures + sum(count >= scope.window for count in self.row.crashes)

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
        while self._decided:  # the code behind a patch has recorded nothing before its answer is
            await self._append(self._decided.pop(0), nothing)
        then = partial(self._appended, scope)
        return await self._append(record, then, runs=runs, events=events, cancel=cancel, status=status)

    async def _append(self, record: StepRecord, then: Callable[[StepRecord], None], **about: Any) -> StepRecord:
        async def write() -> StepRecord:
            # Behind those that other branches are writing: each fails if the one before it does.
            seq = self._seq + self._flying
            numbered = replace(record, seq=seq) if record.seq != seq else record
            self._flying += 1

            def appended(_: None) -> None:
                self._flying -= 1
                self._seq += 1
                then(numbered)

            await self._log.append(numbered, self.row.fence, appended, self._not_appended, **about)
            return numbered

        return await self._insist(record.key or "run", write)

    def _not_appended(self, error: BaseException) -> None:
        self._flying -= 1

    async def _insist(self, what: str, write: Callable[[], Awaitable[T]]) -> T:
        """Write something, as often as the journal refuses it for now."""
        delay = FIRST_DELAY
        # A pass that is only suspended still records what its bodies did; a cancelled run takes nothing more.
        while self._scheduler.signal is not CancelSignal:
            try:
                return await write()
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

    def _appended(self, scope: Scope, record: StepRecord) -> None:
        if self._log.crash is not None:
            return
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
