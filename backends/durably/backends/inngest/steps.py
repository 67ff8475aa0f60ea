"""The steps of one run as Inngest's operations: each ends in one step there, which keeps our record of it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import inngest

from durably.backends.inngest.events import Origin, event_data, event_expression, read_event
from durably.backends.inngest.host import InngestHost
from durably.backends.inngest.outcome import child_view
from durably.backends.inngest.recorded_steps import StepRecorder, given
from durably.backends.inngest.records import decode_result
from durably.backends.inngest.suspended_code import SuspendableCode
from durably.core import Event, Function, FunctionRef, NonDeterminismError
from durably.core.attempts import StepCall, run_step, step_crash_limit, step_retry_delay
from durably.core.cause import Cause
from durably.core.errors import (
    PayloadTooLargeError,
    StepTimeoutError,
    SuspendSignal,
    UnsupportedFeatureError,
    error_to_json,
)
from durably.core.failure_log import log_failed_step
from durably.core.history import Kind, StepRecord
from durably.core.replay import EVENT_IDS, MAYBE_EVENT, invoke_input, read_output, settle
from durably.core.run import invoke_error
from durably.core.run_events import INPUT_STEP, child_id, is_judged, named_events
from durably.core.run_input import encode_data
from durably.core.serialization import codec_for, encode_input
from durably.core.step_errors import crashed, final_error, interrupted, invoke_timeout
from durably.core.step_keys import Branch, Scope, StepEngine

__all__ = ["FOREVER", "InngestSteps", "whole_seconds"]

FOREVER = timedelta(days=365)
"""Inngest wants a timeout for every wait; this one stands for none."""

STATE_LIMIT = 31 * 2**20
"""Bytes of all steps of a run, a little below where Inngest ends it, without its code having a say."""

_JSON = codec_for(Any)


class InngestSteps(StepEngine):
    """What each kind of step does, during one pass of a run's code over its records.

    Args:
        host: The worker.
        function: The code.
        run_id: The run.
        ancestry: The runs that wait for this one, itself last.
        known: How many of its records this worker has seen before.
        code: What answers the requests.
        recorder: Has steps run and kept by Inngest.
    """

    def __init__(
        self,
        host: InngestHost,
        function: Function[Any, Any],
        *,
        run_id: str,
        cause: Cause,
        ancestry: tuple[str, ...],
        known: int,
        code: SuspendableCode,
        recorder: StepRecorder,
    ) -> None:
        self.host = host
        self.function = function
        self.run_id = run_id
        self.cause = cause
        self.code = code
        self.recorder = recorder
        self._ancestry = ancestry
        self._known = known

    # -- run

    async def run(self, scope: Scope, call: StepCall) -> Any:
        key = call.key
        self._check_crash_limit(call)
        asked = self.asked(call.args, key)
        record = await self.take(scope, key, "step", asked)
        if record is None:
            await self._begin(scope, key)
            if call.at_most_once:
                started = self.recorder.record(key, "step", "started", input=asked)
                record = await self.commit(scope, key, given(started))
        while record is None or not record.final:
            if record is not None and record.due is not None:
                await self.recorder.sleep_until(scope, f"{key}~wait{self.recorder.number(key)}", record.due)
            record = await self.commit(scope, key, lambda: self.attempt(call, asked))
        return settle(record, call.codec)

    def _check_crash_limit(self, call: StepCall) -> None:
        if call.crash_limit is not None and call.crash_limit > self.function.crash_limit:
            raise UnsupportedFeatureError(
                backend="inngest",
                feature=f"crash_limit={call.crash_limit} of step {call.key!r}, which is more than its function's",
                reason="it counts the requests of a run that came to nothing, whichever step they were for. Give the "
                "function the larger limit, and the other steps a smaller one",
            )

    async def attempt(self, call: StepCall, asked: str) -> StepRecord:
        """One execution of a body, as a record: a failure is one too, so that nothing the user catches is lost."""
        key, started = call.key, self.host.now()
        lost = self.code.request.attempt  # requests for this execution that were not answered; a body may have run
        if call.at_most_once and lost:
            return self.recorder.failed(key, "step", interrupted(key), input=asked, started=started)
        earlier = 0 if call.at_most_once else self.recorder.executions(key)
        failures = self.recorder.recorded.failures(key)
        crashes = earlier - failures + lost
        if crashes > step_crash_limit(call, self.function):
            final = crashed(key, failures, crashes, started)
            return self.recorder.failed(key, "step", final, attempt=earlier + lost, input=asked, started=started)
        attempt = earlier + 1 + lost
        try:
            output = await run_step(
                call,
                self.host.environment,
                function=self.function.id,
                run_id=self.run_id,
                attempt=attempt,
                failures=self.recorder.recorded.failures(key) if self.host.environment.observers.steps else 0,
                cause=self.cause,
            )
            self._check_state(key, output.text)
        except Exception as error:
            return self.attempt_failed(call, attempt, asked, started, error)
        return self.recorder.record(
            key, "step", "completed", attempt=attempt, input=asked, output=output.text, started=started
        )

    def attempt_failed(self, call: StepCall, attempt: int, asked: str, started: float, error: Exception) -> StepRecord:
        """The record of a failed attempt: the step's error if it was the last, else when the next one begins."""
        key = call.key
        failures = self.recorder.recorded.failures(key) + 1
        delay = step_retry_delay(call, self.function, self.run_id, failures, error)
        redact = self.host.environment.redactor.text
        log_failed_step(key, self.function.id, self.run_id, attempt, error, delay, redact)
        if delay is None:
            final = final_error(key, failures, error, redact)
            return self.recorder.failed(key, "step", final, attempt=attempt, input=asked, started=started)
        data = error_to_json(error, redact)
        due = self.host.now() + delay
        return self.recorder.record(
            key, "step", "retrying", attempt=attempt, input=asked, error=data, due=due, started=started
        )

    def _check_state(self, key: str, output: str) -> None:
        request = self.code.request
        if request.large and (size := request.size() + len(output)) > STATE_LIMIT:
            raise PayloadTooLargeError(step=key, size=size, limit=STATE_LIMIT)

    # -- invoke

    async def invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        asked = self.host.environment.redactor.text(invoke_input(key, function, data))
        record = await self.take(scope, key, "invoke", asked)
        if record is None:
            child = child_id(self.run_id, key)
            started = self.host.now()
            await self._begin_wait("invoke", key, _call_id(key), function.id, timeout)
            result = await self._call(scope, key, function, child, data, timeout)
            await self.pass_point("child_done", key)

            async def ended() -> StepRecord:
                fields: dict[str, Any] = {"input": asked, "name": function.id}
                if isinstance(result, str):
                    return self.recorder.record(key, "invoke", "completed", output=result, **fields)
                if isinstance(result, StepTimeoutError):
                    await self.host.events.abandon(child)  # Inngest stops waiting for it, and lets it run on
                return self.recorder.failed(key, "invoke", result, started=started, **fields)

            record = await self.commit(scope, key, ended)
        return settle(record, function.output)

    async def _call(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], child: str, data: Any, timeout: float | None
    ) -> str | Exception:
        """Call a function and wait for it: its result as JSON text, or the step's error."""
        # Once the child is there, its input was accepted; it is not judged again for a call that is not made again.
        step_id = _call_id(key)
        settled = self.code.request.has_settled(step_id)
        wired = {} if settled else self._child_data(key, function, child, data)
        try:
            value = await self.recorder.ask(
                scope,
                step_id,
                lambda request: request.step.invoke_by_id(
                    step_id,
                    app_id=self.host.apps.of(function.id),
                    function_id=function.id,
                    data=wired,
                    timeout=whole_seconds(timeout),
                ),
            )
        except inngest.StepError as failure:
            if failure.name == "InngestInvokeTimeoutError":
                return invoke_timeout(key, function.id, timeout or 0.0)
            return invoke_error(child_view(failure, function.id, child), step=key)
        return function.output.encode(read_output(decode_result(value), function.output, step=key), step=key)

    def _child_data(self, key: str, function: FunctionRef[Any, Any], child: str, data: Any) -> dict[str, Any]:
        text = self.host.environment.redactor.text(encode_data(function, data))
        line, place = (*self._ancestry, child), self._traceparent(key)
        origin = Origin(child, line, self.run_id, key, judged=is_judged(function), traceparent=place)
        return event_data(_JSON.decode(text, step=key), origin)

    # -- events and time

    async def send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        asked = self.asked(events, key)
        record = await self.take(scope, key, "send_event", asked)
        if record is None:
            await self._begin(scope, key)
            named = named_events(self.run_id, key, events, self._traceparent(key))

            async def send() -> StepRecord:
                if named:
                    await self.host.events.send(named)
                await self.pass_point("after_send", key)
                output = EVENT_IDS.encode([event.id for event in named], step=key)
                return self.recorder.record(key, "send_event", "completed", input=asked, output=output)

            record = await self.commit(scope, key, send)
        ids: list[str] = settle(record, EVENT_IDS)
        return ids

    async def sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        asked = self.asked((duration, until), key)
        record = await self.take(scope, key, "sleep", asked)
        if record is None:
            await self._begin(scope, key)
            due = until if duration is None else self.host.now() + duration
            status: Any = "completed" if due is None or due <= self.host.now() else "started"
            begun = self.recorder.record(key, "sleep", status, input=asked, output="null", due=due)
            record = await self.commit(scope, key, given(begun))
        if record.final:
            return
        await self.recorder.sleep_until(scope, f"{key}~until", record.due or 0.0)
        ended = self.recorder.record(key, "sleep", "completed", input=asked, output="null", started=record.at)
        await self.commit(scope, key, given(ended))

    async def wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        asked = self.asked((name, match, timeout), key)
        record = await self.take(scope, key, "wait_for_event", asked)
        if record is None:
            wait = f"{key}~event"
            await self._begin_wait("wait_for_event", key, wait, name, timeout)
            found = await self.recorder.ask(
                scope,
                wait,
                lambda request: request.step.wait_for_event(
                    wait,
                    event=name,
                    if_exp=event_expression(match, self.recorder.sent),
                    timeout=whole_seconds(timeout) or FOREVER,
                ),
            )
            event = None if found is None else read_event(found.model_dump())[0]
            output = self.host.environment.redactor.text(MAYBE_EVENT.encode(event, step=key))
            ended = self.recorder.record(key, "wait_for_event", "completed", input=asked, name=name, output=output)
            record = await self.commit(scope, key, given(ended))
        result: Event | None = settle(record, MAYBE_EVENT)
        return result

    # -- gather

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self.recorder.recorded.take_gather(scope, key, len(branches))
        outcomes = await self.recorder.gather(scope, key, branches)
        if len(outcomes) < len(branches):
            # The SDK drops a branch whose planned step is not there any more; the run would complete without it.
            raise NonDeterminismError(
                step=key, recorded="a planned step that is not there any more", asked=f"gather {key!r} without it"
            )
        return outcomes

    # -- what all steps share

    def _traceparent(self, key: str) -> str | None:
        return self.host.environment.observers.traceparent(self.run_id, key, self.cause)

    def patched(self, scope: Scope, patch_id: str) -> bool:
        return self.recorder.patched(scope, patch_id)

    def before_step(self, scope: Scope) -> None:
        # What the `finally` of code that is unwound asks for comes with another request, if the code gets there.
        if scope.prefix in self.code.interrupts:
            raise SuspendSignal

    def is_replaying(self, scope: Scope) -> bool:
        # A request for one step goes only through code that another request went through before.
        return self.code.request.target is not None or self.recorder.recorded.replaying(scope)

    def records_input(self) -> bool:
        return self.recorder.recorded.may_begin_with(INPUT_STEP)

    def is_ending(self) -> bool:
        return self.code.ending

    def check_end(self, scope: Scope) -> None:
        self.before_step(scope)  # code may swallow even a signal, and end while it is unwound
        self.recorder.recorded.check_end(scope)

    def asked(self, args: Sequence[Any], key: str) -> str:
        """What a record keeps of a step's arguments, and a replay compares."""
        return self.redact(encode_input(args, step=key))

    def redact(self, text: str) -> str:
        return self.host.environment.redactor.text(text)

    async def take(self, scope: Scope, key: str, kind: Kind, asked: str) -> StepRecord | None:
        """The last record of the step the code asks for now, or ``None`` if it is new."""
        record = self.recorder.recorded.take(scope, key, kind, asked)
        if record is not None:
            await self.pass_point("after_commit" if record.seq >= self._known else "replay", key)
        return record

    async def commit(self, scope: Scope, key: str, body: Callable[[], Awaitable[StepRecord]]) -> StepRecord:
        """Have Inngest run a body that gives a record, and keep that; the record as the next request brings it."""
        record = await self.recorder.commit(scope, key, body)
        await self.pass_point("after_commit", key)
        return record

    async def _begin(self, scope: Scope, key: str) -> None:
        """Report that a step begins. In a branch it is met in many requests, and begins in the one that is for it."""
        if scope.parent is None or self.code.request.is_target(key):
            await self.pass_point("before_start", key)

    async def _begin_wait(self, kind: Kind, key: str, step_id: str, name: str, timeout: float | None) -> None:
        """Report that a step begins which waits for something, unless what it waits for is there."""
        self.recorder.race_gathers_of(key)
        if not self.code.request.has_settled(step_id):
            await self.pass_point("before_start", key)
            if self.code.first_time(key):
                now = self.host.now()
                due = None if timeout is None else now + timeout
                begun = StepRecord(self.run_id, 0, key, kind, "started", name=name, at=now, due=due)
                self.host.environment.observers.tell_of(begun, self.function.id, self.cause)

    async def pass_point(self, name: str, key: str) -> None:
        """Report a point to the harness."""
        if self.host.environment.probe is not None:
            await self.host.environment.pass_point(name, self.function.id, self.run_id, key)


def _call_id(key: str) -> str:
    """The id on Inngest of the call of a function, beside that of its record."""
    return f"{key}~call"


def whole_seconds(seconds: float | None) -> timedelta | None:
    """A timeout as Inngest takes it: whole seconds, at least one, rounded up."""
    return None if seconds is None else timedelta(seconds=max(1, math.ceil(seconds)))
