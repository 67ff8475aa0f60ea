"""The seven durable steps as Inngest's operations: each ends in one step there, which keeps our record of it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest

from durably.backends.inngest.events import Origin, expression, from_wire, to_wire
from durably.backends.inngest.outcome import how_it_failed
from durably.backends.inngest.recorded_steps import KeptSteps, give
from durably.backends.inngest.records import read_result
from durably.backends.inngest.sdk import FAN_OUT, ResponseInterrupt
from durably.core import Event, FunctionRef, NonDeterminismError, StepTimeoutError
from durably.core.attempts import Body, run_body
from durably.core.backend import encode_data
from durably.core.errors import error_to_json, is_retriable
from durably.core.history import StepRecord
from durably.core.ids import derive_id
from durably.core.replay import EVENT_IDS, MAYBE_EVENT, invoke_input, settle
from durably.core.serialization import codec_for
from durably.core.step_errors import final_error, interrupted, invoke_timeout
from durably.core.step_keys import Branch, Scope
from durably.core.steps import StepInfo

__all__ = ["FOREVER", "InngestSteps"]

FOREVER = timedelta(days=365)
"""Inngest wants a timeout for every wait; this one stands for none."""


class InngestSteps(KeptSteps):
    """One request's pass of a run's code over its records. See :class:`KeptSteps` for the arguments."""

    async def _run(self, scope: Scope, body: Body) -> Any:
        key = body.key
        asked = self._asked(body.args, key)
        record = await self._take(scope, key, "step", asked)
        if record is None:
            await self._begins(key)
            if body.at_most_once:
                record = await self._keep(key, self._record(key, "step", "started", input=asked))
        while record is None or not record.final:
            if record is not None and record.due is not None:
                await self._sleep_until(f"{key}~wait{self._numbers[key]}", record.due)
            record = await self._step(key, lambda: self._attempt(body, asked))
        return settle(record, body.codec)

    async def _attempt(self, body: Body, asked: str) -> StepRecord:
        """One execution of a body, as a record: a failure is one too, so that nothing the user catches is lost."""
        host, key = self._host, body.key
        started = host.now()
        attempt = self._executions.get(key, 0) * (not body.at_most_once) + 1 + self._request.attempt
        if body.at_most_once and self._request.attempt:
            return self._failure(key, asked, interrupted(key), started)
        info = StepInfo(self._run_id, key, attempt, host.resources, self._beat(key))
        try:
            value = await run_body(body, info, probe=host.probe, function=self._function.id, threads=True)
            output = host.redactor.text(body.codec.encode(value, step=key, limit=host.max_payload_bytes))
            body.codec.decode(output, step=key)
            self._check_state(key, output)
        except Exception as error:
            return self._failed(body, attempt, asked, started, error)
        return self._record(key, "step", "completed", attempt=attempt, input=asked, output=output, started=started)

    def _failed(self, body: Body, attempt: int, asked: str, started: float, error: Exception) -> StepRecord:
        key = body.key
        failures = self._recorded.failures(key) + 1
        retries = self._function.retries if body.retries is None else body.retries
        timed_out = isinstance(error, StepTimeoutError) and error.step == key
        if failures > retries or body.at_most_once or not (timed_out or is_retriable(error)):
            return self._failure(key, asked, final_error(key, failures, error), started, attempt=attempt)
        delay = self._function.retry_policy.next_delay(error, failures, derive_id("effect", self._run_id, key))
        data = self._host.redactor.data(error_to_json(error))
        due = self._host.now() + delay
        return self._record(key, "step", "retrying", attempt=attempt, input=asked, error=data, due=due, started=started)

    async def _invoke(
        self, scope: Scope, key: str, function: FunctionRef[Any, Any], data: Any, timeout: float | None
    ) -> Any:
        asked = self._host.redactor.text(invoke_input(key, function, data))
        record = await self._take(scope, key, "invoke", asked)
        if record is not None:
            return settle(record, function.output)
        self._goes_alone(key)
        call = f"{key}~call"
        child = derive_id("child", self._run_id, key)
        if not self._request.has(call):
            await self._pass("before_start", key)
        started = self._host.now()
        plain = codec_for(Any).decode(self._host.redactor.text(encode_data(function, data)), step=key)
        error: Exception | None = None
        output = "null"
        try:
            value = await self.ask(
                lambda request: request.step.invoke_by_id(
                    call,
                    app_id=self._host.app_of(function.id),
                    function_id=function.id,
                    data=to_wire(plain, Origin(child, (*self._line, child), self._run_id, key)),
                    timeout=whole(timeout),
                )
            )
            given = codec_for(Any).decode(read_result(value), step=key)
            output = function.output.encode(function.output.validate(given, what="the child's result"), step=key)
        except inngest.StepError as failure:
            error = self._child_failed(failure, key, function.id, child, timeout)
        await self._pass("child_done", key)

        async def finish() -> StepRecord:
            if isinstance(error, StepTimeoutError):
                await self._host.abandon(child)
            if error is not None:
                return self._failure(key, asked, error, started, kind="invoke", name=function.id)
            return self._record(key, "invoke", "completed", input=asked, name=function.id, output=output)

        record = await self._step(key, finish)
        return settle(record, function.output)

    def _child_failed(
        self, failure: inngest.StepError, key: str, function: str, child: str, timeout: float | None
    ) -> Exception:
        if failure.name == "InngestInvokeTimeoutError":
            return invoke_timeout(key, function, timeout or 0.0)
        return how_it_failed(failure.name, failure.message, failure.stack, key, function, child)

    async def _send_event(self, scope: Scope, key: str, events: Sequence[Event]) -> list[str]:
        asked = self._asked(events, key)
        record = await self._take(scope, key, "send_event", asked)
        if record is None:
            await self._begins(key)
            named = [
                event if event.id else event.model_copy(update={"id": derive_id("event", self._run_id, f"{key}#{n}")})
                for n, event in enumerate(events)
            ]

            async def send() -> StepRecord:
                if named:
                    await self._host.send(*named)
                await self._pass("after_send", key)
                output = EVENT_IDS.encode([event.id for event in named], step=key)
                return self._record(key, "send_event", "completed", input=asked, output=output)

            record = await self._step(key, send)
        ids: list[str] = settle(record, EVENT_IDS)
        return ids

    async def _sleep(self, scope: Scope, key: str, duration: float | None, until: float | None) -> None:
        asked = self._asked((duration, until), key)
        record = await self._take(scope, key, "sleep", asked)
        if record is not None and record.final:
            return
        if record is None:
            await self._begins(key)
            due = until if duration is None else self._host.now() + duration
            final = due is None or due <= self._host.now()
            status: Any = "completed" if final else "started"
            record = await self._keep(key, self._record(key, "sleep", status, input=asked, output="null", due=due))
            if final:
                return
        await self._sleep_until(f"{key}~until", record.due or 0.0)
        ended = self._record(key, "sleep", "completed", input=asked, output="null", started=record.at)
        await self._step(key, give(ended))

    async def _sleep_until(self, step_id: str, due: float) -> None:
        """Sleep, and again if Inngest ends it early: it rounds to whole seconds."""
        number = 0
        self._goes_alone(step_id)
        while self._host.now() < due:
            await self._nap(f"{step_id}{number}", due)
            number += 1

    async def _nap(self, step_id: str, due: float) -> None:
        await self.ask(lambda request: request.step.sleep_until(step_id, datetime.fromtimestamp(due, UTC)))

    async def _wait_for_event(
        self, scope: Scope, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        asked = self._asked((name, match, timeout), key)
        record = await self._take(scope, key, "wait_for_event", asked)
        if record is None:
            self._goes_alone(key)
            wait = f"{key}~event"
            if not self._request.has(wait):
                await self._pass("before_start", key)
            found = await self.ask(
                lambda request: request.step.wait_for_event(
                    wait, event=name, if_exp=expression(match, self._sent), timeout=whole(timeout) or FOREVER
                )
            )
            event = None if found is None else from_wire(found.model_dump())[0]
            output = self._host.redactor.text(MAYBE_EVENT.encode(event, step=key))
            ended = self._record(key, "wait_for_event", "completed", input=asked, name=name, output=output)
            record = await self._step(key, give(ended))
        seen: Event | None = settle(record, MAYBE_EVENT)
        return seen

    async def _gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        self._guard(lambda: self._recorded.take_gather(scope, key, len(branches)))

        async def drive(branch: Branch) -> Any:
            try:
                return await branch()
            except Exception as error:
                return error

        try:
            outcomes = await self._request.group.parallel(tuple(_bind(drive, branch) for branch in branches))
        except ResponseInterrupt as answer:
            if key in self._apart:
                for each in answer.responses:
                    each.step.set_parallel_mode(FAN_OUT)
            self._answers[scope.prefix] = answer
            raise
        if len(outcomes) < len(branches):
            self._broken = NonDeterminismError(
                step=key, recorded="a planned step that is not there any more", asked=f"gather {key!r} without it"
            )
            raise self._broken
        self._fanned_out = key in self._apart
        return list(outcomes)


def whole(seconds: float | None) -> timedelta | None:
    """A timeout as Inngest takes it: whole seconds, at least one, rounded up."""
    return None if seconds is None else timedelta(seconds=max(1, math.ceil(seconds)))


def _bind(drive: Callable[[Branch], Awaitable[Any]], branch: Branch) -> Callable[[], Awaitable[Any]]:
    return lambda: drive(branch)
