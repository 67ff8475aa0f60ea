"""Driving runs: the code of each over its records, pass after pass, until it ends."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from durably.backends.replay.crash_watch import Trial
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.journal import nothing
from durably.backends.replay.journal_types import Changes, RunRow
from durably.backends.replay.records import RunRecords
from durably.backends.replay.resting import RestingRuns
from durably.backends.replay.restored_runs import RestoredRuns, note_going_on, note_rest
from durably.backends.replay.scheduler import RunScheduler
from durably.backends.replay.steps import ReplaySteps
from durably.core import Event, Function, NonDeterminismError
from durably.core.call_off import call_off
from durably.core.cause import Cause
from durably.core.error_text import error_text
from durably.core.errors import (
    CancelSignal,
    CrashLoopError,
    InterruptSignal,
    JournalCorruptError,
    JournalError,
    Signal,
    SuspendSignal,
    error_to_json,
)
from durably.core.failure_log import log_failed_run
from durably.core.function_attempts import function_retry_delay, run_function
from durably.core.history import StepRecord
from durably.core.run_events import failed_event
from durably.core.run_view import RunStatus
from durably.core.step_keys import KeyedSteps

__all__ = ["Driver", "RunPass"]

logger = logging.getLogger("durably")

UNWIND_SECONDS = 5.0
"""How long bodies that are cut off may take to unwind."""

GIVE_BACK_SECONDS = 0.1
"""How often a worker that drains gives back the runs that stand still."""

TROUBLE_SECONDS = 1.0
"""How long a run waits whose records cannot be read just now."""


@dataclass(frozen=True, kw_only=True)
class RunPass:
    """One pass of a run's code over its records.

    Attributes:
        row: The run.
        function: Its code.
        first: Its first record, which has what started it.
        failures: How often the code itself has failed.
        due: When the next attempt of the code begins, in seconds since 1970, or ``None`` for now.
        records: What it recorded, and records now.
        scheduler: How it waits.
        steps: What the code calls.
    """

    row: RunRow
    function: Function[Any, Any]
    first: StepRecord
    failures: int
    due: float | None
    records: RunRecords
    scheduler: RunScheduler
    steps: KeyedSteps


class Driver:
    """Runs the functions of one worker.

    Args:
        host: The worker.
        records: How a run's records are kept.
        steps: What each kind of step does.
        keys: What the code calls.
        max_runs: How many runs it drives at once before it takes no more, or ``None``. Those that wait do not count.
        max_resting: How many runs that wait stay in memory, or ``None`` for all.

    Attributes:
        resting: The runs that wait.
        unfit: Runs that this worker's code was found not to fit. It does not change while the worker is up.
        trial_over: Called when the next run may be taken up that crashed twice in one place.
    """

    def __init__(
        self,
        host: ReplayHost,
        *,
        records: type[RunRecords],
        steps: type[ReplaySteps],
        keys: type[KeyedSteps],
        max_runs: int | None = None,
        max_resting: int | None = None,
    ) -> None:
        self.host = host
        self.max_runs = max_runs
        self.resting = RestingRuns(max_resting, host.scheduler, resume=self.resume, note=partial(note_rest, host.log))
        self._restored = RestoredRuns(host, self.resting, self.crash)
        self._records = records
        self._steps = steps
        self._keys = keys
        self._open = False
        self._stopping = False
        self.unfit: set[str] = set()
        self.trial_over: Callable[[], None] = lambda: None
        self._trial = Trial(host.scheduler.clock, lambda: self.trial_over())
        self._cut_off: set[str] = set()
        self._passes: dict[str, RunPass] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._rows: dict[str, RunRow] = {}
        self._next: dict[str, RunRow] = {}
        self._early_signals: dict[str, type[Signal]] = {}
        self._context = contextvars.Context()
        self._early: list[RunRow] | None = None
        host.log.subscribe(self.apply)

    # -- the runs of this worker

    @property
    def live(self) -> list[str]:
        """The ids of the runs that are in memory here."""
        return list(self._tasks)

    @property
    def held(self) -> set[str]:
        """The ids of the runs that this worker has: those in memory, and those that wait and have left it."""
        return {*self._tasks, *(row.id for row in self.resting.rows)}

    def place(self, run_id: str) -> int | None:
        """How many records a run has that is in memory here."""
        run_pass = self._passes.get(run_id)
        return None if run_pass is None else run_pass.records.count

    @property
    def room(self) -> int | None:
        """How many more runs it takes now; ``None`` for any number."""
        if self._stopping:
            return 0
        if self.max_runs is None:
            return None
        resting = sum(1 for each in self._passes.values() if each.scheduler.resting)
        return max(0, self.max_runs - (len(self._tasks) - resting))

    @property
    def on_trial(self) -> bool:
        """Whether a run that crashed twice in one place is being driven, and has not come further yet."""
        return self._trial.run_id is not None

    def open(self) -> None:
        """Take runs from now on, to be driven once the worker begins."""
        self._open, self._stopping = True, False
        self._early = []
        self.host.events.open()
        self._cut_off = set()
        # Runs get a context of their own: one that is started inside a body must not seem to be inside it.
        self._context = contextvars.Context()

    def begin(self) -> None:
        """Drive the runs that were taken, and those that will be."""
        early, self._early = self._early, None
        for row in early or ():
            self.spawn(row)

    def spawn(self, row: RunRow) -> None:
        """Drive a run that this worker has claimed, or let it rest on where it rests."""
        if not self._open or self._stopping:
            return
        if self._early is not None:
            self._early.append(row)
            return
        self.resting.drop(row.id)
        if row.id in self._tasks or not self._restored.rest_on(row, self._context):
            self.resume(row)

    def resume(self, row: RunRow) -> None:
        """Drive a run that this worker has."""
        if not self._open or self._stopping:
            return
        if row.id in self._tasks:
            self._next[row.id] = row  # taken up again while what drove it is still on its way out
            return
        if row.is_suspected:
            self._trial.begin(row.id)
        self.host.scheduler.began()
        task = asyncio.get_running_loop().create_task(self._drive(row), context=self._context.copy())
        self._tasks[row.id], self._rows[row.id] = task, row
        task.add_done_callback(lambda task: self._forget(row.id, task))

    def _forget(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(run_id, None)
        self._rows.pop(run_id, None)
        self._passes.pop(run_id, None)
        self._early_signals.pop(run_id, None)
        self.resting.goes_on(run_id)
        self._trial.end(run_id)
        if not task.cancelled() and (error := task.exception()) is not None and self.host.log.crash is None:
            logger.error("run %s: the engine failed; the run stays where it was", run_id, exc_info=error)
            self.crash(error)
        following = self._next.pop(run_id, None)
        if following is not None:
            self.resume(following)
        elif not self.resting.has_left(run_id):
            self.host.events.forget(run_id)
        self.host.scheduler.run_rests()  # there is room for another
        self.host.scheduler.ended()

    def interrupt(self, run_id: str, signal: type[Signal]) -> None:
        """Unwind a run at its next step boundary, if this worker has it."""
        row, run_pass = self.resting.drop(run_id), self._passes.get(run_id)
        if run_pass is not None:
            run_pass.scheduler.interrupt(signal)
        elif run_id in self._tasks:  # its code has not begun
            self._early_signals[run_id] = signal
        elif row is not None:
            self.host.events.forget(run_id)
            if signal is CancelSignal:
                journal = self.host.log.journal
                cause = Cause.of(journal.first_record(run_id).output or "")
                self._tell_of(journal.last_record(run_id), row, cause)

    def apply(self, changes: Changes) -> None:
        """Act on what a transaction changed."""
        scheduler = self.host.scheduler
        for run_id in changes.ended:
            scheduler.run_ended(run_id)
        for run_id in changes.cancelled:
            self.interrupt(run_id, CancelSignal)
            scheduler.run_ended(run_id)
        self.host.events.deliver(changes.received)
        for row in changes.created:
            self.spawn(row)

    def drop_lost(self) -> None:
        """Let go of the runs that others took while this worker's lease was over."""
        for held in [*self._rows.values(), *self.resting.rows]:
            run_id, row = held.id, self.host.log.journal.get(held.id)
            if row is not None and row.fence == held.fence:
                continue
            self.resting.drop(run_id)
            if run_id in self._passes:
                self._passes[run_id].records.lose()
            elif run_id in self._tasks:  # its code has not begun here
                self._tasks[run_id].cancel()
            else:
                self.host.events.forget(run_id)

    async def stop(self, grace: float) -> Collection[str]:
        """Take no more runs, suspend all at their next step boundary, and give each back as soon as it stands still.

        Args:
            grace: Seconds that running bodies are given.

        Returns:
            The runs of which a body was cut off, since it did not end in time or was interrupted.
        """
        self._stopping = True
        self._restored.cancel()
        aside = self.resting.clear()
        for run_id in aside:
            self.host.events.forget(run_id)
        for run_id in list(self._tasks):
            self.interrupt(run_id, SuspendSignal)
        await self._give_back(aside)
        late = await self._drain(asyncio.get_running_loop().time() + grace)
        for run_id, task in list(self._tasks.items()):
            if task in late:
                logger.warning("a body did not end within %g seconds of the stop; it will run again", grace)
                self._cut_off.add(run_id)
                if run_id in self._passes:
                    self._passes[run_id].scheduler.cut_off = True
                task.cancel()
        if late:  # a body may swallow that it is cancelled: it is left behind then
            await asyncio.wait(late, timeout=UNWIND_SECONDS)
        self._open = False
        return self._cut_off

    async def _drain(self, deadline: float) -> set[asyncio.Task[None]]:
        """Wait for the runs to stand still, and give them back; those that do not in time."""
        loop = asyncio.get_running_loop()
        held = {task: run_id for run_id, task in self._tasks.items()}
        pending = set(held)
        while pending:
            left = deadline - loop.time()
            done, pending = await asyncio.wait(pending, timeout=max(0.0, min(GIVE_BACK_SECONDS, left)))
            await self._give_back([held[task] for task in done if held[task] not in self._cut_off])
            if left <= 0:
                break
        return pending

    async def _give_back(self, run_ids: Sequence[str]) -> None:
        log = self.host.log
        if not run_ids or log.crash is not None:
            return
        try:
            await log.write(lambda: log.journal.give_back(log.worker, run_ids))
        except JournalError as error:
            logger.warning("%d runs are given back only when this worker has stopped: %s", len(run_ids), error)

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is written, every task ends where it stands.

        For the harness. Whoever waits for a result gets the signal.
        """
        log = self.host.log
        if log.crash is not None:
            return
        log.crash = signal
        self.resting.clear()
        log.journal.abandon(signal)
        log.journal.write(lambda: log.journal.bury(log.worker), nothing, self._not_buried)
        current = asyncio.current_task()
        self._restored.cancel()
        for task in [*self._tasks.values(), *self.host.environment.bodies]:
            if task is not current:
                task.cancel()
        self.host.scheduler.stop(signal)

    def _not_buried(self, error: BaseException) -> None:
        logger.info("that worker %s has died is noticed only by its lease: %s", self.host.log.worker, error)

    # -- one run

    async def _drive(self, row: RunRow) -> None:
        """Run a function's code over its records until it ends, as often as that takes."""
        again = True
        try:
            while again:
                again = await self._pass_over(row)
        except CancelSignal:
            await self._cancelled(row)
        except SuspendSignal:
            run_pass = self._passes.get(row.id)
            if run_pass is not None and run_pass.scheduler.signal is CancelSignal:  # while it was being unwound
                await self._cancelled(row)
        except InterruptSignal:
            self._cut_off.add(row.id)
        except Signal as signal:
            self.crash(signal)

    async def _cancelled(self, row: RunRow) -> None:
        # Told by the worker that held the run, whoever cancelled it: only it knows what it told of the run before.
        self._tell_of(self.host.log.journal.last_record(row.id), row)
        self.host.scheduler.run_ended(row.id)
        if row.id in self._passes:
            calls = self._passes[row.id].steps.to_call_off
            await call_off(calls, self.host.environment, function=row.function, run_id=row.id)

    async def _pass_over(self, row: RunRow) -> bool:
        """One pass; whether another one is to follow."""
        if self._stopping:
            raise SuspendSignal
        scheduler = RunScheduler(self.host.scheduler)
        try:
            own = not self._rows[row.id].rested or await self._goes_on(row)
            records = self.host.log.journal.records(row.id)
        except JournalCorruptError as error:
            await self._damaged(row, error)
            return False
        except JournalError as error:
            logger.warning("run %s waits: %s", row.id, error)
            await scheduler.pause(TROUBLE_SECONDS)
            if self._stopping:
                raise SuspendSignal from None
            return True
        run_pass = self._passes[row.id] = self._begin(row, records, scheduler)
        early = self._early_signals.pop(row.id, None)
        if early is not None:
            scheduler.interrupt(early)
        if not own:
            run_pass.records.lose()
        try:
            try:
                run_pass.records.watch.check(run_pass.function)
            except CrashLoopError as error:
                return not await self.attempt_failed(run_pass, run_pass.failures + 1, error)
            if run_pass.due is not None:
                await scheduler.sleep_until(run_pass.due)
                run_pass.records.watch.goes_on()
            await self._pass_point("before_first", row)
            return not await self.attempt(run_pass)
        except SuspendSignal:
            if self._stopping or run_pass.records.stale or self.resting.has_left(row.id) or not self.host.evict:
                raise
            refusal = run_pass.steps.root.refusal
            # In the next pass, steps that were begun at the same time would come one after the other.
            return refusal is None or not await self.attempt_failed(run_pass, run_pass.failures + 1, refusal)

    async def _goes_on(self, row: RunRow) -> bool:
        """Note that a run is driven that had left memory: a crash may be its own. Whether it is still this worker's."""
        own = await note_going_on(self.host.log, row)
        self._rows[row.id] = replace(row, rested=0)
        return own

    def _begin(self, row: RunRow, records: Sequence[StepRecord], scheduler: RunScheduler) -> RunPass:
        function = self.host.functions[row.function]
        if len(records) == 1 and not row.crashes:
            self._tell_of(records[0], row)
        kept = self._records(self.host.log, self.host.environment, row, records, scheduler)
        kept.watch.cleared = partial(self._trial.end, row.id)
        if not kept.watch.suspected:
            self._trial.end(row.id)
        engine = self._steps(self.host, function, kept, scheduler)
        own: list[StepRecord] = []
        for record in records:
            if record.status == "resumed":
                own.clear()  # a fresh set of attempts
            elif record.kind == "run":
                own.append(record)
        run_pass = RunPass(
            row=row,
            function=function,
            first=records[0],
            failures=sum(record.status == "retrying" for record in own),
            due=next((record.due for record in reversed(own) if record.due is not None), None),
            records=kept,
            scheduler=scheduler,
            steps=self._keys(engine),
        )
        scheduler.rests = partial(self._rests, row.id)  # no reference to the pass: it would hold itself in memory
        return run_pass

    def _rests(self, run_id: str) -> None:
        """All branches of a run wait."""
        run_pass = self._passes[run_id]
        watch, steps = run_pass.records.watch, run_pass.steps
        watch.rests()
        # What is to be called off with a run, and how it does after crashes, is known while its code is in memory; and
        # in the next pass, steps that were begun at the same time would come one after the other.
        self.resting.rests(
            run_pass.row,
            run_pass.scheduler,
            lambda: not (watch.suspected or steps.to_call_off or steps.refusal is not None),
            run_pass.records.count,
        )

    async def _damaged(self, row: RunRow, error: JournalCorruptError) -> None:
        logger.error("run %s of %r fails: %s", row.id, row.function, error)
        seq, now = self.host.log.journal.count(row.id), self.host.scheduler.clock.now()
        last = StepRecord(row.id, seq, "", "run", "failed", name=row.function, error=error_to_json(error), at=now)
        await self.host.log.append(
            last, row.fence, lambda _: self._tell_of(last, row), nothing, status=RunStatus.FAILED
        )

    async def attempt(self, run_pass: RunPass) -> bool:
        """One attempt of a run's code; whether the run has ended."""
        row, first = run_pass.row, run_pass.first
        try:
            event = Event.model_validate_json(first.output or "")
            output = await run_function(
                run_pass.function,
                run_pass.steps,
                event,
                self.host.environment,
                run_id=row.id,
                attempt=run_pass.failures + 1,
            )
        except Exception as error:
            return await self.attempt_failed(run_pass, run_pass.failures + 1, error)
        await self._pass_point("before_result", row)
        await run_pass.records.finish(run_pass.steps.root, "completed", first.at, output=output)
        await self._pass_point("after_result", row)
        return True

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> bool:
        """Record a failed attempt of a run's code: to be tried again later, or the run's end."""
        row, function, records = run_pass.row, run_pass.function, run_pass.records
        redact = self.host.environment.redactor.text
        data = error_to_json(error, redact)
        if isinstance(error, NonDeterminismError) and function.on_code_change == "wait":
            await self._leave(run_pass, data, error_text(error, redact))
        delay = function_retry_delay(function, row.id, failures, error)
        log_failed_run(function.id, row.id, failures, error, delay, redact)
        if delay is not None:
            due = self.host.scheduler.clock.now() + delay
            await records.retry_run(run_pass.steps.root, failures, data, due)
            await self._pass_point("backing_off", row)
            return False
        await self._pass_point("before_result", row)
        runs = []
        if function.on_failure is not None:
            cause = Event.model_validate_json(run_pass.first.output or "")
            told = failed_event(function, row.id, cause, data, records.traceparent(""))
            runs = [self.host.new_run(told.id or "", function.on_failure.id, told.model_dump_json())]
        await records.finish(run_pass.steps.root, "failed", run_pass.first.at, error=data, runs=runs)
        await self._pass_point("after_result", row)
        return True

    async def _leave(self, run_pass: RunPass, data: dict[str, Any], why: str) -> NoReturn:
        """Leave a run that this worker's code does not fit to workers whose code does."""
        row = run_pass.row
        self.unfit.add(row.id)
        await self._pass_point("before_result", row)
        await run_pass.records.stick(data)
        logger.error("run %s of %r is stuck until its code fits: %s", row.id, row.function, why)
        run_pass.records.stale = True
        raise SuspendSignal

    def _tell_of(self, record: StepRecord, row: RunRow, cause: Cause | None = None) -> None:
        run_pass = self._passes.get(row.id)
        cause = cause if run_pass is None else run_pass.records.began_by
        self.host.environment.observers.tell_of(record, row.function, cause)

    async def _pass_point(self, name: str, row: RunRow) -> None:
        await self.host.environment.pass_point(name, row.function, row.id)
