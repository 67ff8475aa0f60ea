"""The steps of one run as commands of Temporal: activity, child workflow, timer, signal.

Everything here is deterministic: it decides by the history alone. Temporal replays a history by running this code again
from the start, so an ``await`` more or less, or a command in another place, makes old runs fail.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from durably.backends.temporal.children import ChildRun
from durably.backends.temporal.commands import Commands, HistoryRoom, check_cancelled
from durably.backends.temporal.event_inbox import EventInbox
from durably.backends.temporal.event_waits import EventWaits
from durably.backends.temporal.host import TemporalHost
from durably.backends.temporal.pace import WOKEN, Pace
from durably.backends.temporal.payloads import FIND, SEND, ActivityRequest, check_size, text_of
from durably.backends.temporal.records import RunRecords, cause_of
from durably.core import Event, Function, FunctionRef
from durably.core.attempts import StepCall, step_crash_limit
from durably.core.cause import Cause
from durably.core.errors import PayloadTooLargeError, Signal, UnsupportedFeatureError
from durably.core.history import Kind, StepRecord
from durably.core.replay import EVENT_IDS, MAYBE_EVENT, invoke_input
from durably.core.run import invoke_error
from durably.core.run_events import INPUT_STEP, child_id, invoked_event, named_events
from durably.core.run_input import encode_data
from durably.core.run_view import RunStatus
from durably.core.serialization import encode_input
from durably.core.step_errors import invoke_timeout
from durably.core.step_keys import Branch, Scope, StepEngine
from durably.core.steps import Point

__all__ = ["TemporalSteps"]

PAUSE_EVERY = 200
"""So many records are replayed at once: Temporal takes a workflow that computes for 2 seconds for stuck."""

SHORTEST = 0.001
"""The shortest timer, in seconds: one of 0 is none, and the run would not wait at all."""


class TemporalSteps(StepEngine):
    """What each kind of step does, during one pass of a run's code.

    Args:
        host: The worker.
        function: The code.
        run_id: The run, which is the workflow's id.
        cause: What began it.
        records: What the run has come to.
        commands: How activities are run.
        inbox: Events that came for waiting steps.
        returning: Whether the code left an earlier history before a step, to which it comes again.
    """

    most_branches = 2_000
    """So many activities, and so many children, Temporal lets wait at a time."""

    def __init__(
        self,
        host: TemporalHost,
        function: Function[Any, Any],
        run_id: str,
        cause: Cause,
        records: RunRecords,
        commands: Commands,
        inbox: EventInbox,
        *,
        returning: bool = False,
    ) -> None:
        self.host = host
        self.function = function
        self.run_id = run_id
        self.cause = cause
        self.records = records
        self.commands = commands
        self.waits = EventWaits(run_id, host.hub_queue, commands, inbox)
        self.room = HistoryRoom(host.continue_after, returning=returning)
        self.pace = Pace(commands.complete_task, lambda: self.waits.registering)

    # -- run

    async def run(self, scope: Scope, call: StepCall) -> Any:
        asked = self.asked(call.args, call.key)
        name = self.host.registry.name_of(call.fn, self.function)
        args = self.commands.arguments(call) if name is not None else _refuse(call, self.function)
        record = await self.take(scope, call.key, "step", asked)
        if record is None and name is None:
            record = await self._closure(call, asked)
        elif record is None:
            record = await self._activity(call, name or "", asked, args)
        return self.records.settle(record, call.codec)

    async def _activity(self, call: StepCall, name: str, asked: str, args: Sequence[RawValue]) -> StepRecord:
        """A body that any worker can find. Temporal repeats its attempts."""
        started = workflow.time()
        self.pass_point("before_start", call.key)
        request = ActivityRequest(
            body=name,
            input=asked,
            retries=call.retries,
            timeout=call.timeout,
            once=call.at_most_once,
            earlier=self.records.recorded.all_failures(call.key),
            crash_limit=step_crash_limit(call, self.function),
            cause=self._told_cause,
        )
        try:
            value = await self.commands.activity(call, request, args)
        except ActivityError as error:
            return self.failed("step", call.key, asked, error, started)
        return self.settled("step", call.key, asked, value, started)

    async def _closure(self, call: StepCall, asked: str) -> StepRecord:
        """A body that only this process has: one attempt a local activity, and a timer before the next one."""
        started = workflow.time()
        task = workflow.info().get_current_history_length()
        failures, earlier = 0, self.records.recorded.all_failures(call.key)
        while True:
            history = self.records.history
            # Temporal writes down nothing of an attempt that a crash cut off, but of the task in which it ran.
            lost, crashes = (0, 0) if history is None else history.lost_tasks.since(task)
            request = ActivityRequest(
                body="",
                input=asked,
                retries=call.retries,
                failures=failures,
                lost=lost,
                earlier=earlier,
                crashes=crashes,
                crash_limit=step_crash_limit(call, self.function),
                cause=self._told_cause,
            )
            self.pass_point("before_start", call.key)
            try:
                value = await self.commands.local_activity(call, request)
            except (ActivityError, ApplicationError) as error:
                delay = _delay(error)
                if delay is None:
                    await self.commands.complete_task()
                    return self.failed("step", call.key, asked, error, started)
                self.pass_point("backing_off", call.key)
                failures += 1
                await workflow.sleep(max(SHORTEST, delay))
            else:
                # A local activity is written down when its task completes. Without this, a crash after the next
                # effect would run this body again too.
                await self.commands.complete_task()
                return self.settled("step", call.key, asked, value, started)

    # -- invoke

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        redactor = self.host.environment.redactor
        asked = redactor.text(invoke_input(key, function, data))
        child = child_id(self.run_id, key)
        record = await self.take(scope, key, "invoke", asked)
        if record is None:
            # An input that was accepted is not judged again; the child has it from the history.
            given = "null" if self.records.has_begun(key) else encode_data(function, data)
            event = redactor.text(invoked_event(function, child, given, self._traceparent(key)))
            check_size(event, step=key, limit=self.host.environment.max_payload_bytes)
            self.pass_point("before_start", key)
            started = workflow.time()
            run = ChildRun(id=child, function=function.id, event=event, key=key, asked=asked, timeout=timeout)
            record = await self._child(run, started)
        return self.records.settle(record, function.output)

    async def _child(self, child: ChildRun, started: float) -> StepRecord:
        key, asked = child.key, child.asked
        failed = None
        if self.records.recorded.all_failures(key):  # this run was retried, and its child is with it
            found = await self.commands.system(f"durably:child:{key}", FIND, child.id)
            failed = json.loads(text_of(found))
        handle = await child.start(self.host, failed)
        self.pass_point("child_started", key)
        due = None if child.timeout is None else started + child.timeout
        self.tell_begun("invoke", key, started, name=child.function, due=due)
        if not await child.wait(handle):
            error: Exception = invoke_timeout(key, child.function, child.timeout)
            return self.told(self.records.add("invoke", key, asked, started, error=error))
        self.pass_point("child_done", key)
        self.pass_point("after_commit", key)
        view = child.view(handle)
        if view.status is not RunStatus.COMPLETED:
            return self.told(self.records.add("invoke", key, asked, started, error=invoke_error(view, step=key)))
        return self.told(self.records.add("invoke", key, asked, started, output=view.output))

    # -- events and time

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        asked = self.asked(events, key)
        sent = named_events(self.run_id, key, events, self._traceparent(key))
        named = [self._masked(event, key) for event in sent]
        record = await self.take(scope, key, "send_event", asked)
        if record is None:
            started = workflow.time()
            self.pass_point("before_start", key)
            value = await self.commands.system(key, SEND, named, asked=asked)
            record = self.settled("send_event", key, asked, value, started)
            self.pass_point("after_send", key)
        ids: list[str] = self.records.settle(record, EVENT_IDS)
        return ids

    def _masked(self, event: Event, key: str) -> dict[str, Any]:
        """An event as it travels, without secrets."""
        text = self.host.environment.redactor.text(event.model_dump_json())
        check_size(text, step=key, limit=self.host.environment.max_payload_bytes)
        data: dict[str, Any] = json.loads(text)
        return data

    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        asked = self.asked((duration, until), key)
        if await self.take(scope, key, "sleep", asked) is None:
            started = workflow.time()
            self.pass_point("before_start", key)
            due = until if duration is None else started + duration
            delay = timedelta(seconds=max(SHORTEST, (due or 0.0) - started))
            self.tell_begun("sleep", key, started, due=due)
            # The summary is all that the history has of the step's key.
            await workflow.sleep(delay, summary=f"{key} {asked}")
            self.pass_point("after_commit", key)
            self.told(self.records.add("sleep", key, asked, started, output="null"))

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        asked = self.asked((name, match, timeout), key)
        started = workflow.time()
        with self.waits.registration():
            record = await self.take(scope, key, "wait_for_event", asked)
            if record is None:
                self.pass_point("before_start", key)
                many = self.pace.kept and bool(scope.prefix)
                woken = many and self.pace.patch == WOKEN
                await self.waits.register(key, name, match, asked, many=many, woken=woken)
        if record is None:
            self.pass_point("registered", key)
            due = None if timeout is None else started + timeout
            self.tell_begun("wait_for_event", key, started, name=name, due=due)
            event = await self.waits.receive(key, due)
            self.pass_point("after_commit", key)
            output = self.host.environment.redactor.text(MAYBE_EVENT.encode(event, step=key))
            record = self.told(self.records.add("wait_for_event", key, asked, started, output=output))
        seen: Event | None = self.records.settle(record, MAYBE_EVENT)
        return seen

    # -- gather

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self.records.take_gather(scope, key, len(branches))
        if not branches:
            return []

        tasks: list[asyncio.Future[Any]] = []
        with self.pace.under_way(len(branches)):
            try:
                with self.pace.beginning():
                    for branch in branches:
                        await self.pace.begin_branch()
                        tasks.append(asyncio.ensure_future(branch()))
                # Not asyncio's wait: it goes through a set, whose order is another one at each replay.
                await workflow.wait(tasks)
            except BaseException:
                for task in tasks:
                    task.cancel()
                    task.add_done_callback(_look_at)
                raise
        return [task.result() for task in tasks]

    # -- what all steps share

    def patched(self, scope: Scope, patch_id: str) -> bool:
        return self.records.patched(scope, patch_id)

    def is_replaying(self, scope: Scope) -> bool:
        return workflow.unsafe.is_replaying() or self.room.returning or self.records.recorded.replaying(scope)

    def records_input(self) -> bool:
        # The marker tells a run that begins now from one whose history is replayed. Earlier histories have no marker
        # here, but their records.
        if self.records.has_earlier:
            return self.records.recorded.may_begin_with(INPUT_STEP)
        return workflow.patched(INPUT_STEP)

    def is_ending(self) -> bool:
        info = workflow.info()
        return workflow.cancellation_reason() is not None or info.run_id in self.host.evicting

    def before_step(self, scope: Scope) -> None:
        self.room.check_left()

    def check_end(self, scope: Scope) -> None:
        self.room.check_left()
        self.records.check_end(scope)

    def asked(self, args: Sequence[Any], key: str) -> str:
        """What a record keeps of a step's arguments, and a replay compares."""
        return self.redact(encode_input(args, step=key))

    def redact(self, text: str) -> str:
        return self.host.environment.redactor.text(text)

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        """The record of the step the code asks for now, or ``None`` if no earlier history has come to its end."""
        record = self.records.take(scope, key, kind, asked)
        if record is not None:
            self.pass_point("replay", key)
            if self.records.replayed % PAUSE_EVERY == 0:
                await self.commands.complete_task()
            return record
        check_cancelled()
        if scope.prefix and kind != "wait_for_event":
            await self.pace.begin_step()
            await self.waits.let_others_register()
        try:
            # Not left from a branch: the others may be at bodies, which would be cut off and run again.
            self.room.check(key, replayed=self.records.replayed, may_leave=not scope.prefix)
        except PayloadTooLargeError as error:
            scope.root.refusal = error  # caught or not: the code would fill what is left with further steps
            raise
        return None

    def settled(self, kind: Kind, key: str, asked: str, value: RawValue, started: float) -> StepRecord:
        """The record of a step whose activity gave a value."""
        record = self.records.settled(kind, key, asked, value, started)
        self.pass_point("after_commit", key)
        return record if kind == "step" else self.told(record)

    def failed(self, kind: Kind, key: str, asked: str, error: FailureError, started: float) -> StepRecord:
        """The record of a step whose activity failed for good."""
        check_cancelled()  # a run that is cancelled cancels its activities: that is no failure of theirs
        record = self.records.failed(kind, key, asked, error, started)
        self.pass_point("after_commit", key)
        return record

    def tell_begun(self, kind: Kind, key: str, started: float, **fields: Any) -> None:
        """Tell observers that a step has begun which waits."""
        self.told(StepRecord(self.run_id, 0, key, kind, "started", at=started, **fields))

    def told(self, record: StepRecord) -> StepRecord:
        """A record that observers were told of. Of a body they are told where it runs."""
        self.host.tell_of(record, self.function.id, self.cause)
        return record

    @property
    def _told_cause(self) -> Mapping[str, Any]:
        """What began the run, as activities are told of it: on another worker they cannot know."""
        return asdict(self.cause) if self.host.environment.observers.traces else {}

    def _traceparent(self, key: str) -> str | None:
        return self.host.environment.observers.traceparent(self.run_id, key, self.cause)

    def pass_point(self, name: str, key: str) -> None:
        """Report a point to the harness. A workflow cannot wait, so a pause is not kept here."""
        probe = self.host.environment.probe
        if probe is None or workflow.unsafe.is_replaying():
            return
        try:
            pause = probe(Point(name, self.function.id, self.run_id, key))
        except Signal as signal:
            self.host.crash(signal)
            raise
        if asyncio.iscoroutine(pause):
            pause.close()


def _look_at(task: asyncio.Future[Any]) -> None:
    """Retrieve what ended a branch that nobody awaits any more; asyncio would write it into the log."""
    if not task.cancelled():
        task.exception()


def _refuse(call: StepCall, function: Function[Any, Any]) -> list[RawValue]:
    """The arguments of a closure, which do not travel.

    Raises:
        UnsupportedFeatureError: If it may run only once, or crash more often than its function.
    """
    if call.crash_limit is not None and call.crash_limit > function.crash_limit:
        raise UnsupportedFeatureError(
            backend="Temporal",
            feature=f"crash_limit={call.crash_limit} for the closure of step {call.key!r}, more than its function's",
            reason="Temporal counts the tasks of a run that were cut off, and not what ran in them. Use a function of "
            "a module, or give the durable function the larger limit",
        )
    if call.at_most_once:
        raise UnsupportedFeatureError(
            backend="Temporal",
            feature=f"at_most_once for the closure of step {call.key!r}",
            reason="Temporal writes down that a closure ran only after it ran. Use a function of a module, or a "
            "method of a tool, an agent or a resource",
        )
    return []


def _delay(error: FailureError) -> float | None:
    """How long to wait before the next attempt of a closure, or ``None`` after the last one."""
    cause = cause_of(error)
    if isinstance(cause, ApplicationError) and not cause.non_retryable and len(cause.details) > 1:
        return float(cause.details[1])
    return None
