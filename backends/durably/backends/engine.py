"""The replay engine: a worker that holds runs, drives them over their records, and wakes those that wait."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import SecretStr

from durably.backends.clock import Clock, Timer
from durably.backends.execution import Execution, Waiting
from durably.backends.journal import Changes, Journal, NewRun, RunRow, Subscription
from durably.core import (
    Backend,
    Context,
    DurablyError,
    Event,
    Function,
    FunctionRef,
    History,
    JournalCorruptError,
    JournalError,
    NonDeterminismError,
    NonRetriableError,
    Run,
    RunNotFoundError,
    Singleton,
    StepRecord,
)
from durably.core.backend import RunStatus, RunView
from durably.core.body import pass_point
from durably.core.errors import CancelSignal, Signal, SuspendSignal, error_to_json, is_retriable
from durably.core.function import FailedRun
from durably.core.ids import derive_id, new_id
from durably.core.steps import Point

__all__ = ["ReplayBackend"]

logger = logging.getLogger("durably")

LEASE_SECONDS = 15.0
GRACE_SECONDS = 30.0
TROUBLE_SECONDS = 1.0


class ReplayBackend(Backend):
    """What the memory and the SQLite backends share: everything but the storage.

    Args:
        functions: What it runs.
        journal: Where runs are kept.
        clock: Where time comes from.
        threads: Whether sync bodies run in threads.
        seed: Fixes the order of concurrent branches, or ``None`` to leave it to the event loop.
        evict: ``"always"`` replays a run from the start after each step.
        poll: Seconds between looks at what other processes did, or ``None`` if there can be none.
        grace: Seconds a running body is given to end when the worker stops.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return; left out, what the backend says it can keep.
    """

    execution: ClassVar[type[Execution]] = Execution
    """What drives a run's code over its records."""

    def __init__(
        self,
        functions: Sequence[Function[Any, Any]],
        *,
        journal: Journal,
        clock: Clock,
        threads: bool,
        seed: int | None = None,
        evict: Literal["never", "always"] = "never",
        poll: float | None = None,
        grace: float = GRACE_SECONDS,
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
    ) -> None:
        super().__init__(functions, resources=resources, secrets=secrets)
        if evict not in ("never", "always"):
            raise ValueError(f"evict={evict!r}: use 'never' or 'always'")
        self.journal = journal
        self.clock = clock
        self.threads = threads
        self.evict = evict == "always"
        self.max_payload_bytes = max_payload_bytes or self.capabilities.max_payload_bytes
        self.grace = grace
        self.worker = new_id()
        self.active = 0
        self._seed = seed
        self._poll = poll
        self._watchers = 0
        self._up = False
        self._stopping = False
        self._delivery: Timer | None = None
        self._crash: BaseException | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._live: dict[str, Execution] = {}
        self._waiting: set[Waiting] = set()
        self._ends: dict[str, set[asyncio.Future[Any]]] = {}
        self._idle: set[asyncio.Future[Any]] = set()
        self._poller: asyncio.Task[None] | None = None

    # -- the worker

    async def __aenter__(self) -> Self:
        """Open the journal and go on with unfinished runs."""
        if self._up:
            raise RuntimeError(f"this {self.name} backend is already running; use one 'async with' for each backend")
        if self._crash is not None:
            raise RuntimeError("this backend has crashed; open a new one on the same journal")
        self.journal.open()
        self._up = True
        # Runs get a context of their own: one that is started inside a body must not seem to be inside it.
        self._context = contextvars.Context()
        self.journal.register([Subscription.of(function) for function in self.functions.values()])
        self._lease()
        self._deliver()
        self._claim()
        if self._poll is not None:
            self._poller = asyncio.create_task(self._watch(self._poll))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop at the next step boundary of each run, then give the runs back."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        self._stopping = True
        for execution in list(self._live.values()):
            execution.interrupt(SuspendSignal)
        late = await self._wait_for_tasks()
        self._arm_delivery(None)
        self._up = self._stopping = False
        try:
            if self._crash is None and not late:
                self.journal.release(self.worker)
            elif self._crash is None:
                self.journal.bury(self.worker)
        finally:
            self.journal.close()

    async def _wait_for_tasks(self) -> bool:
        """Let bodies that are running end; ``True`` if some did not in time and were cut off."""
        tasks = set(self._tasks.values())
        _, late = await asyncio.wait(tasks, timeout=self.grace) if tasks else (tasks, set())
        for task in late:
            logger.warning("a body did not end within %g seconds of the stop; it will run again", self.grace)
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return bool(late)

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is written, every task ends where it stands.

        For the harness. Whoever waits for a result gets the signal.
        """
        if self._crash is not None:
            return
        self._crash = signal
        self.journal.bury(self.worker)
        current = asyncio.current_task()
        for task in self._tasks.values():
            if task is not current:
                task.cancel()
        for future in [*(each for ends in self._ends.values() for each in ends), *self._idle]:
            if not future.done():
                future.set_exception(signal)

    async def _watch(self, poll: float) -> None:
        """Look after the lease, and at what other processes did."""
        while True:
            await asyncio.sleep(poll)
            try:
                if time.time() > self._leased_at + LEASE_SECONDS / 3:
                    self._lease()
                self._claim()
                if self.journal.changed():
                    self._look_around()
            except JournalError as error:
                logger.warning("cannot look after runs now, will try again: %s", error)

    def _lease(self) -> None:
        self._leased_at = time.time()
        self.journal.lease(self.worker, self._leased_at + LEASE_SECONDS)

    def _claim(self) -> None:
        for row in self.journal.claim(self.worker, list(self.functions), time.time()):
            self._spawn(row)

    def _look_around(self) -> None:
        """Another process wrote to the journal: find what concerns the runs that wait here."""
        for run_id in list(self._ends):
            row = self.journal.get(run_id)
            if row is not None and row.status.final:
                self._ended(run_id)
        for waiting in list(self._waiting):
            event = self.find_event(waiting)
            if event is not None:
                self.wake(waiting.future, event)
        for run_id, execution in list(self._live.items()):
            row = self.journal.get(run_id)
            if row is not None and row.status is RunStatus.CANCELLED:
                execution.interrupt(CancelSignal)
        self._arm_delivery(self.journal.next_due())

    def _spawn(self, row: RunRow) -> None:
        if not self._up or self._stopping or row.id in self._tasks:
            return
        self.active += 1
        task = asyncio.get_running_loop().create_task(self._drive(row), context=self._context.copy())
        self._tasks[row.id] = task
        task.add_done_callback(lambda task: self._forget(row.id, task))

    def _forget(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(run_id, None)
        self._live.pop(run_id, None)
        self.active -= 1
        if not task.cancelled() and (error := task.exception()) is not None and self._crash is None:
            logger.error("run %s: the engine failed; the run stays where it was", run_id, exc_info=error)
            self.crash(error)
        self.rest()

    # -- one run

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
            await self._until_writable()
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
            if self._stopping or execution.stale or not (self.evict or execution.trouble):
                raise
            if execution.trouble is None:
                return row
            # A body whose commit failed runs again: that counts as a crash, so that it sees another attempt.
            await self._until_writable()
            return replace(row, crashes=(*row.crashes, self.journal.count(row.id)))
        return None if ended else row

    async def _until_writable(self) -> None:
        """Wait until the journal takes a write again; no body runs before that."""
        while True:
            await self._pause(TROUBLE_SECONDS)
            if self._stopping:
                raise SuspendSignal
            with suppress(JournalError):
                return self._lease()

    async def _pause(self, seconds: float) -> None:
        pause = asyncio.get_running_loop().create_future()
        timer = self.clock.call_at(self.clock.now() + seconds, lambda: self.wake(pause, None))
        self.active -= 1
        self.rest()
        try:
            await pause
        finally:
            timer.cancel()
            self.active += pause.cancelled()

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
                logger=_RunLogger(execution, self),
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

    # -- what executions ask of their host

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

    def wake(self, future: asyncio.Future[Any], value: Any) -> None:
        """Let whoever waits for a future go on; it counts as active from now, not from when it runs."""
        if not future.done():
            self.active += 1
            future.set_result(value)

    def rest(self) -> None:
        """Called when something stopped being active: time may pass."""
        if self.active == 0 and (self._watchers or self._idle):
            asyncio.get_running_loop().call_soon(self._advance)

    def find_event(self, waiting: Waiting) -> Event | None:
        """The first event in the log that a run waits for."""
        for received in self.journal.events_since(waiting.cursor, waiting.name):
            if waiting.wants(received.event, received.seq, received.at):
                return received.event
        return None

    def wait_for_event(self, waiting: Waiting) -> None:
        """Wake it when its event arrives."""
        self._waiting.add(waiting)

    def stop_waiting(self, waiting: Waiting) -> None:
        """Forget it."""
        self._waiting.discard(waiting)

    def find_run(self, run_id: str) -> RunView | None:
        """How a run stands, or ``None``."""
        row = self.journal.get(run_id)
        return None if row is None else self._view_of(row)

    def wait_for_run(self, run_id: str) -> asyncio.Future[Any]:
        """A future that is woken when the run ends."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ends = self._ends.setdefault(run_id, set())
        ends.add(future)
        future.add_done_callback(lambda _: self._unlist(run_id, future))
        return future

    def _unlist(self, run_id: str, future: asyncio.Future[Any]) -> None:
        ends = self._ends.get(run_id)
        if ends is not None:
            ends.discard(future)
            if not ends:
                del self._ends[run_id]

    def singleton_of(self, function: str) -> Singleton | None:
        """The singleton rule of a function this worker serves."""
        known = self.functions.get(function)
        return None if known is None else known.singleton

    def turns(self, key: str) -> int:
        """How often a step of a branch lets the others go first, as the seed says."""
        return 0 if self._seed is None else random.Random(f"{self._seed}/{key}").randrange(4)

    # -- what changed

    def _apply(self, changes: Changes) -> None:
        for run_id in changes.cancelled:
            execution = self._live.get(run_id)
            if execution is not None:
                execution.interrupt(CancelSignal)
            self._ended(run_id)
        for received in changes.received:
            for waiting in list(self._waiting):
                if waiting.wants(received.event, received.seq, received.at):
                    self.wake(waiting.future, received.event)
        for row in changes.created:
            self._spawn(row)
        if changes.scheduled is not None:
            self._arm_delivery(changes.scheduled)

    def _ended(self, run_id: str) -> None:
        for future in self._ends.pop(run_id, ()):
            self.wake(future, None)

    def _arm_delivery(self, due: float | None) -> None:
        """Have one timer, for the next scheduled event."""
        if self._delivery is not None and not self._delivery.cancelled:
            if due is not None and self._delivery.when <= due and not self._stopping:
                return
            self._delivery.cancel()
        if due is not None and self._up and not self._stopping:
            self._delivery = self.clock.call_at(due, self._deliver)

    def _deliver(self) -> None:
        if self._crash is not None:
            return
        try:
            self._apply(self.journal.deliver(worker=self.worker, served=self.functions, now=self.clock.now()))
            self._arm_delivery(self.journal.next_due())
        except JournalError as error:
            logger.warning("cannot deliver scheduled events now, will try again: %s", error)
            self._arm_delivery(self.clock.now() + 1)

    def _advance(self) -> None:
        """Nothing is active: jump to the next timer, where the clock can jump."""
        while self.active == 0 and (self._watchers or self._idle) and self._crash is None:
            if not self.clock.advance():
                if self.clock.armed == 0:
                    for future in self._idle:
                        self.wake(future, None)
                return

    def _redacted(self, event: Event) -> Event:
        return Event.model_validate_json(self.redactor.text(event.model_dump_json()))

    def _alive(self) -> None:
        if self._crash is not None:
            raise self._crash

    # -- the port

    async def drain(self) -> None:
        """Wait until nothing is running, sleeping or scheduled any more: what is left waits for an event."""
        self._running("drain")
        await self._outside(self._idle.add, self._idle.discard)

    async def _outside(self, add: Any, remove: Any) -> None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        add(future)
        self._watchers += 1
        self.rest()
        try:
            await future
            self.active -= 1  # the waker counted it; this waiter is no part of the engine
        finally:
            self._watchers -= 1
            remove(future)

    async def send(self, *events: Event) -> list[str]:
        self._running("send")
        named = [event if event.id else event.model_copy(update={"id": new_id()}) for event in events]
        self._apply(
            self.journal.publish(
                [self._redacted(event) for event in named],
                worker=self.worker,
                served=self.functions,
                now=self.clock.now(),
            )
        )
        return [event.id or "" for event in named]

    async def runs(
        self, *, function: FunctionRef[Any, Any] | str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[Run[Any]]:
        self._running("runs")
        name = function.id if isinstance(function, FunctionRef) else function
        return [
            Run(self, self._find(row.function), self._view_of(row)) for row in self.journal.rows(name, status, limit)
        ]

    async def _start(self, function: FunctionRef[Any, Any], data: str, run_id: str | None) -> RunView:
        self._running("start")
        run_id = run_id or new_id()
        event = f'{{"name":"durably/function.started","data":{data},"id":"{derive_id("start", run_id, "")}"}}'
        new = NewRun(
            id=run_id, function=function.id, event=self.redactor.text(event), singleton=self.singleton_of(function.id)
        )
        served = function.id in self.functions
        row, changes = self.journal.create(new, worker=self.worker if served else None, now=self.clock.now())
        if row.function != function.id:
            raise DurablyError(f"run {run_id!r} belongs to function {row.function!r}, not {function.id!r}")
        self._apply(changes)
        return self._view_of(row)

    async def _view(self, run_id: str) -> RunView:
        self._running("run")
        row = self.journal.get(run_id)
        if row is None:
            raise RunNotFoundError(run_id)
        return self._view_of(row)

    async def _wait(self, run_id: str) -> RunView:
        view = await self._view(run_id)
        while not view.status.final:
            ends = self._ends.setdefault(run_id, set())
            await self._outside(ends.add, ends.discard)
            view = await self._view(run_id)
        return view

    async def _cancel(self, run_id: str) -> None:
        self._running("cancel")
        self._apply(self.journal.cancel(run_id, self.clock.now()))

    async def _history(self, run_id: str) -> History:
        self._running("history")
        if self.journal.get(run_id) is None:
            raise RunNotFoundError(run_id)
        return History(self.journal.records(run_id))

    def _running(self, what: str) -> None:
        if not self._up:
            raise RuntimeError(f"{what}() needs a running backend: use it inside 'async with backend:'")
        self._alive()

    def _view_of(self, row: RunRow) -> RunView:
        last = self.journal.last_record(row.id) if row.status.final else None
        return RunView(
            id=row.id,
            function=row.function,
            status=row.status,
            output=last.output if last is not None and row.status is RunStatus.COMPLETED else None,
            error=last.error if last is not None else None,
            created_at=row.created_at,
            ended_at=last.at if last is not None else 0.0,
            parent=row.parent,
        )


def _is_cancelled() -> bool:
    """Whether it is this task that is being cancelled, not something that the user's code awaited."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def _as_exception(error: BaseException) -> Exception:
    """An error that may end a run but must not end the worker."""
    return error if isinstance(error, Exception) else NonRetriableError(f"{type(error).__name__}: {error}")


class _RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs for a run: nothing while its steps are replayed, and no secrets."""

    def __init__(self, execution: Execution, backend: ReplayBackend) -> None:
        # A logger of this pass's own, so that its filter ends with it; the shared one would keep every backend's.
        shared = logging.getLogger(f"durably.run.{execution.function.id}")
        own = logging.Logger(shared.name)
        own.parent = shared
        own.addFilter(backend.redactor)
        super().__init__(own, {"run_id": execution.row.id})
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        return not self._execution.replaying and super().isEnabledFor(level)
