"""The steps of one run, answered from its records where they can be and run where they must be."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from durably.backends.replay.events import EventWaiter
from durably.backends.replay.flow.slots import wanted_slots
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.lone_bodies import LoneBodies
from durably.backends.replay.outcome import find_run
from durably.backends.replay.records import RunRecords
from durably.backends.replay.scheduler import RunScheduler
from durably.core import DefinitionError, Event, Function, FunctionRef
from durably.core.attempts import StepCall, StepOutput, run_step, step_crash_limit, step_retry_delay
from durably.core.contained_errors import drop_outcome
from durably.core.errors import CancelSignal, InterruptSignal, JournalError, Signal, SuspendSignal
from durably.core.failure_log import log_failed_step
from durably.core.history import Kind, StepRecord
from durably.core.replay import EVENT_IDS, MAYBE_EVENT, NOTHING, invoke_input, read_output, settle
from durably.core.run import invoke_error
from durably.core.run_events import INPUT_STEP, child_id, invoked_event, named_events
from durably.core.run_input import encode_data
from durably.core.run_view import RunStatus, RunView
from durably.core.serialization import encode_input
from durably.core.step_errors import crashed, final_error, interrupted, invoke_timeout
from durably.core.step_keys import Branch, Scope, StepEngine

__all__ = ["ReplaySteps"]

logger = logging.getLogger("durably")

TROUBLE_SECONDS = 1.0
"""How long a body waits that may not begin, since the storage does not say whose its run is."""


class ReplaySteps(StepEngine):
    """What each kind of step does, during one pass of a run's code over its records.

    Args:
        host: The worker.
        function: The code.
        records: The run's records.
        scheduler: How this pass waits, and how it is interrupted.
    """

    most_steps = 1_000_000
    """A run has room for 16 million records, and a step that is tried again and again has several."""

    def __init__(
        self, host: ReplayHost, function: Function[Any, Any], records: RunRecords, scheduler: RunScheduler
    ) -> None:
        self.host = host
        self.function = function
        self.records = records
        self.scheduler = scheduler
        self.clock = host.scheduler.clock
        self.run_id = records.row.id
        self.lone = LoneBodies(scheduler, records.watch) if records.row.crashes else None
        self._registering = 0
        self._behind: list[asyncio.Future[Any]] = []

    # -- run

    async def run(self, scope: Scope, call: StepCall) -> Any:
        key = call.key
        asked = self.asked(call.args, key)
        record = await self.take(scope, key, "step", asked)
        if record is not None:
            if record.final:
                return settle(record, call.codec)
            if record.status == "started":
                await self.fail(scope, record, interrupted(key))
        if self.records.row.crashes:
            await self.check_crashes(scope, call, asked)
        if record is not None and record.due is not None:
            await self.scheduler.sleep_until(record.due)
        if self.host.environment.probe is not None:
            await self.pass_point("before_start", key)
        attempt = 0
        while True:
            attempt = max(attempt + 1, self.records.attempt(scope, key))
            output = await self.attempt(scope, call, attempt, asked)
            if output is not None:
                return output.value

    async def check_crashes(self, scope: Scope, call: StepCall, asked: str) -> None:
        """Fail a step that was cut off by more crashes than its limit allows."""
        crashes = self.records.watch.in_window(scope.window, call.key)
        if len(crashes) > step_crash_limit(call, self.function):
            key, attempt = call.key, self.records.attempt(scope, call.key)
            record = self.records.record(key, "step", "failed", None, attempt=attempt - 1, input=asked)
            failures = self.records.recorded.failures(key)
            await self.fail(scope, record, crashed(key, failures, len(crashes), crashes[0]))

    def before_body(self) -> Awaitable[None] | None:
        """Note that a body begins, if its run has crashed; what to wait for if this worker may have lost its runs."""
        if self.records.stale or self.scheduler.signal is CancelSignal:  # since this was called before
            self._check()
        if (self.lone is not None and self.records.watch.notes_bodies) or time.time() >= self.host.lease.until:
            return self._may_begin()
        return None

    async def _may_begin(self) -> None:
        """Note that a body begins, and go on only if the run is still this worker's, although its lease was over."""
        if self.lone is not None:
            await self.records.watch.body_begins()
        while time.time() >= self.host.lease.until:
            try:
                await self.host.lease.renew()
            except JournalError as error:
                logger.warning("run %s waits, since the lease of its worker is over: %s", self.run_id, error)
                await self.scheduler.pause(TROUBLE_SECONDS)
            self._check()
        self._check()

    async def attempt(self, scope: Scope, call: StepCall, attempt: int, asked: str) -> StepOutput | None:
        """One attempt: what it gave, its final error raised, or ``None`` once the delay before the next is over."""
        key, own = call.key, self.host.body_slots
        if own is None and self.lone is None and not self.function.concurrency:
            outcome, started = await self._execute(scope, call, attempt, asked)
        else:
            # This worker's first: while it has none free, it must not hold a slot that others wait for.
            slot = nullcontext() if own is None else own.place(self.scheduler)
            async with slot, self._slots(key), self._place(scope, call):
                outcome, started = await self._execute(scope, call, attempt, asked)
        if isinstance(outcome, Exception):
            await self.attempt_failed(scope, call, attempt, asked, started, outcome)
            return None
        await self.settled(scope, key, "step", asked, outcome.text, attempt=attempt, started=started)
        return outcome

    async def _execute(
        self, scope: Scope, call: StepCall, attempt: int, asked: str
    ) -> tuple[StepOutput | Exception, float]:
        """Run a body; what it gave or raised, and when it began."""
        key = call.key
        if call.at_most_once:
            await self.records.commit(scope, key, "step", "started", attempt=attempt, input=asked)
        environment, started = self.host.environment, self.clock.now()
        heard = environment.observers.steps
        try:
            output = await run_step(
                call,
                environment,
                function=self.function.id,
                run_id=self.run_id,
                attempt=attempt,
                failures=self.records.recorded.failures(key) if heard else 0,
                beats=True,
                before_body=self.before_body,
                cause=self.records.began_by if heard else None,
            )
        except Exception as error:
            return error, started
        return output, started

    def _slots(self, key: str) -> AbstractAsyncContextManager[None]:
        """A block in which the function's limits let a body run."""
        if not self.function.concurrency:
            return nullcontext()
        wanted = wanted_slots(self.function, Event.model_validate_json(self.records.cause))
        return self.host.slots.hold(wanted, self.run_id, key, self.scheduler)

    def _place(self, scope: Scope, call: StepCall) -> AbstractAsyncContextManager[None]:
        """A block in which the crashes of the run let a body run."""
        if self.lone is None:
            return nullcontext()
        limit = step_crash_limit(call, self.function)
        alone = self.records.watch.must_be_alone(scope.window, call.key, limit)
        return self.lone.place(call.key, alone=alone)

    async def attempt_failed(
        self, scope: Scope, call: StepCall, attempt: int, asked: str, started: float, error: Exception
    ) -> None:
        """Record a failed attempt: raise the step's error if it was the last, else wait for the next one."""
        key = call.key
        failures = self.records.recorded.failures(key) + 1
        delay = step_retry_delay(call, self.function, self.run_id, failures, error)
        redact = self.host.environment.redactor.text
        log_failed_step(key, self.function.id, self.run_id, attempt, error, delay, redact)
        if delay is None:
            record = self.records.record(key, "step", "failed", started=started, attempt=attempt, input=asked)
            await self.fail(scope, record, final_error(key, failures, error, redact))
            return
        due = self.clock.now() + delay
        await self.records.commit(
            scope, key, "step", "retrying", started=started, error=error, attempt=attempt, input=asked, due=due
        )
        await self.pass_point("backing_off", key)
        if self.host.evict:
            raise SuspendSignal
        await self.scheduler.sleep_until(due)

    # -- invoke

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        if isinstance(function, Function) and self.host.functions.get(function.id) is not function:
            raise DefinitionError(
                f"step {key!r} invokes {function.id!r}, which no one serves: add it to functions=[...]"
            )
        asked = self.host.environment.redactor.text(invoke_input(key, function, data))
        child = child_id(self.run_id, key)
        record = await self.take(scope, key, "invoke", asked)
        if record is not None and record.final:
            return settle(record, function.output)
        if record is None:
            given = encode_data(function, data)  # before anything is recorded: a wrong input leaves no trace
            event = invoked_event(function, child, given, self.records.traceparent(key))
            record = await self._start_child(scope, key, function.id, child, event, asked, timeout)
        view = await self._await_child(child, record.due)
        await self.pass_point("child_done", key)
        if view is None:
            return await self.fail(scope, record, invoke_timeout(key, function.id, timeout), cancel=child)
        if view.status is not RunStatus.COMPLETED:
            return await self.fail(scope, record, invoke_error(view, step=key))
        output = view.output or "null"
        await self.settled(scope, key, "invoke", asked, output, name=function.id, started=record.at)
        return read_output(output, function.output, step=key)

    async def _start_child(
        self, scope: Scope, key: str, function: str, child: str, event: str, asked: str, timeout: float | None
    ) -> StepRecord:
        await self.pass_point("before_start", key)
        new = self.host.new_run(child, function, event, parent=self.run_id)
        due = None if timeout is None else self.clock.now() + timeout
        record = await self.records.commit(
            scope, key, "invoke", "started", input=asked, name=function, output=f'"{child}"', due=due, runs=[new]
        )
        await self.pass_point("child_started", key)
        return record

    async def _await_child(self, child: str, due: float | None) -> RunView | None:
        """The child once it has ended, or ``None`` when the time is up first."""
        while True:
            view = find_run(self.host.log.journal, child)
            if view is not None and view.status.final:
                return None if due is not None and view.ended_at > due else view
            if due is not None and self.clock.now() >= due:
                return None
            end = partial(self.scheduler.scheduler.end_of, child)
            await self.scheduler.park(end(), due, again=end)

    # -- events and time

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        asked = self.asked(events, key)
        record = await self.take(scope, key, "send_event", asked)
        if record is not None:
            recorded: list[str] = settle(record, EVENT_IDS)
            return recorded
        await self.pass_point("before_start", key)
        named = named_events(self.run_id, key, events, self.records.traceparent(key))
        ids = [event.id or "" for event in named]
        await self.settled(scope, key, "send_event", asked, EVENT_IDS.encode(ids, step=key), events=named)
        return ids

    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        asked = self.asked((duration, until), key)
        record = await self.take(scope, key, "sleep", asked)
        if record is not None and record.final:
            return
        if record is None:
            await self.pass_point("before_start", key)
            # A float: SQLite gives one back, and a record that says 7.0 for 7 counts as damaged.
            due = float(until or 0) if duration is None else self.clock.now() + duration
            record = await self.records.commit(scope, key, "sleep", "started", input=asked, due=due)
            await self.pass_point("registered", key)
        if record.due is not None:
            await self.scheduler.sleep_until(record.due)
        await self.settled(scope, key, "sleep", asked, "null", started=record.at)

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        asked = self.asked((name, match, timeout), key)
        with self._registration():
            record = await self.take(scope, key, "wait_for_event", asked)
            if record is not None and record.final:
                recorded: Event | None = settle(record, MAYBE_EVENT)
                return recorded
            new = record is None
            if record is None:
                record = await self._register(scope, key, name, asked, timeout)
        if new:
            await self.pass_point("registered", key)
        waiter = EventWaiter(self.run_id, key, name, match, int(record.output or 0), record.due)
        event = await self._await_event(waiter, asked)
        output = self.host.environment.redactor.text(MAYBE_EVENT.encode(event, step=key))
        await self.settled(scope, key, "wait_for_event", asked, output, name=name, started=record.at)
        result: Event | None = MAYBE_EVENT.decode(output, step=key)
        return result

    async def _register(self, scope: Scope, key: str, name: str, asked: str, timeout: float | None) -> StepRecord:
        """Record that the wait has begun, and behind which place of the event log."""
        await self.pass_point("before_start", key)
        due = None if timeout is None else self.clock.now() + timeout
        cursor = str(self.host.log.journal.cursor())
        return await self.records.commit(
            scope, key, "wait_for_event", "started", input=asked, name=name, output=cursor, due=due
        )

    async def _await_event(self, waiter: EventWaiter, asked: str) -> Event | None:
        events = self.host.events
        waiter = events.begin(waiter)
        if waiter.event is not None:
            return waiter.event
        future = waiter.future = self.scheduler.future()
        again, told = partial(events.keep, waiter), partial(waiter.is_told_by, asked)
        try:
            await self.scheduler.park(future, waiter.due, again=again, recorded=told)
        finally:
            events.end(waiter, future)
        # At the due time the event may be in the log although nobody was told: another process received it.
        return waiter.event or events.find(waiter)

    # -- gather

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self.records.recorded.take_gather(scope, key, len(branches))
        if not branches:
            return []
        scheduler = self.scheduler
        running = len(branches)
        scheduler.began(running - 1)  # this gather stands still: its place goes to the first branch

        async def drive(branch: Branch) -> Any:
            nonlocal running
            try:
                return await branch()
            except Signal as signal:
                if not isinstance(signal, SuspendSignal | CancelSignal | InterruptSignal):
                    self.host.crash(signal)  # at once: in a process that is gone, the other branches do not go on
                raise
            finally:
                running -= 1
                if running:  # the last one leaves its place to this gather
                    scheduler.ended()

        tasks = [asyncio.get_running_loop().create_task(drive(branch)) for branch in branches]
        try:
            await asyncio.wait(tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
                task.add_done_callback(drop_outcome)
            raise
        signals = [error for error in (task.exception() for task in tasks) if error is not None]
        if not signals:
            return [task.result() for task in tasks]
        signal = next((each for each in signals if not isinstance(each, SuspendSignal | CancelSignal)), signals[0])
        try:
            raise signal
        finally:
            # Its traceback holds this frame: with these, all that is unwound would stay until the garbage is collected.
            del signal, signals, tasks

    async def _give_way(self, kind: Kind, key: str) -> None:
        """In a branch, let the others go first as often as the seed says.

        All let a wait go first: what stands beside it may ask for its event, which must not come before the wait.
        """
        if kind == "wait_for_event":
            return
        for _ in range(1 + self.host.turns(key)):
            await asyncio.sleep(0)
        while self._registering:
            self._behind.append(self.scheduler.future())
            await self.scheduler.park(self._behind[-1], None)

    @contextmanager
    def _registration(self) -> Iterator[None]:
        """While a wait is being registered, the steps of other branches stay behind."""
        self._registering += 1
        try:
            yield
        finally:
            self._registering -= 1
            while self._behind and not self._registering:
                self.host.scheduler.wake(self._behind.pop())

    # -- what all steps share

    def patched(self, scope: Scope, patch_id: str) -> bool:
        return self.records.patched(scope, patch_id)

    def is_replaying(self, scope: Scope) -> bool:
        return self.records.recorded.replaying(scope)

    def records_input(self) -> bool:
        return self.records.recorded.may_begin_with(INPUT_STEP)

    def is_ending(self) -> bool:
        return self.scheduler.cut_off or self.host.log.crash is not None

    def check_end(self, scope: Scope) -> None:
        self.records.recorded.check_end(scope)

    def asked(self, args: Sequence[Any], key: str) -> str:
        """What a record keeps of a step's arguments, and a replay compares."""
        return self.host.environment.redactor.text(encode_input(args, step=key))

    def redact(self, text: str) -> str:
        return self.host.environment.redactor.text(text)

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        """The last record of the step the code asks for now, or ``None`` if it is new."""
        record = self.records.recorded.take(scope, key, kind, asked)
        if record is not None:
            await self.pass_point("replay", key)
        if record is None or not record.final:
            self._check()
            if scope.prefix:
                await self._give_way(kind, key)
        return record

    async def settled(self, scope: Scope, key: str, kind: Kind, asked: str, output: str, **fields: Any) -> None:
        """Record what a step came to."""
        if kind != "step":
            # A step that has nothing to wait for still lets others run once: one that the code has begun beside it, in
            # an asyncio.gather, must meet it here and be refused, as on an engine that goes over a network.
            await asyncio.sleep(0)
        await self.records.commit(scope, key, kind, "completed", input=asked, output=output, **fields)
        if self.host.environment.probe is not None:
            if kind == "send_event":
                await self.pass_point("after_send", key)
            await self.pass_point("after_commit", key)
        self._after_commit()

    async def fail(self, scope: Scope, record: StepRecord, error: Exception, cancel: str | None = None) -> Any:
        """Record a step's final error and raise it, as every replay will."""
        failed = await self.records.commit(
            scope,
            record.key,
            record.kind,
            "failed",
            started=record.at - record.took,
            error=error,
            cancel=cancel,
            attempt=record.attempt,
            input=record.input,
            name=record.name,
        )
        await self.pass_point("after_commit", record.key)
        self._after_commit()
        return settle(failed, NOTHING)

    def _after_commit(self) -> None:
        if self.host.evict:
            self.scheduler.interrupt(SuspendSignal)
        self._check()

    def _check(self) -> None:
        if self.scheduler.signal is not None:
            raise self.scheduler.signal

    async def pass_point(self, name: str, key: str) -> None:
        """Report a point to the harness; an interruption that it brings about ends the pass here."""
        environment = self.host.environment
        if environment.probe is not None:
            await environment.pass_point(name, self.function.id, self.run_id, key)
            self._check()
