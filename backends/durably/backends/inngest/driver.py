"""Requests of Inngest: the function's attempts over the records so far, until something new is to be kept."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import inngest

from durably.backends.inngest.events import Origin, from_wire
from durably.backends.inngest.host import Host
from durably.backends.inngest.outcome import RunFailed, error_data, text_of
from durably.backends.inngest.records import read_memo, write_memo, write_result
from durably.backends.inngest.sdk import Request, ResponseInterrupt, SkipInterrupt
from durably.backends.inngest.steps import InngestSteps
from durably.backends.inngest.suspended_code import HeldCode
from durably.core import Context, DurablyError, Event, Function, NonDeterminismError
from durably.core.attempts import pass_point
from durably.core.errors import Signal, error_to_json, is_retriable
from durably.core.functions import FailedRun
from durably.core.history import StepRecord
from durably.core.ids import derive_id
from durably.core.run_logger import RunLogger
from durably.core.steps import Point

__all__ = ["Delivery", "deliver"]

logger = logging.getLogger("durably")

FAILED_NAME = "inngest/function.failed"


async def deliver(host: Host, function: Function[Any, Any], ctx: inngest.Context) -> Any:
    """Answer one request: the run's result, or an interrupt of the SDK that carries the next step."""
    request = Request(ctx)
    code = host.held.take(ctx.run_id, request)
    if code is None:
        code = Delivery(host, function, ctx, request)
    host.met(code.run_id, ctx.run_id, request.stack)
    try:
        if not host.held.seconds or request.target is not None:
            return await code.run()
        return await code.serve(request)
    except ResponseInterrupt:
        if code.stands_still:
            host.held.keep(ctx.run_id, code)
        raise
    except Signal as signal:
        host.crash(signal)
        raise


class Delivery(HeldCode):
    """One pass of a run's code, begun by one request.

    Args:
        host: The worker.
        function: The code.
        ctx: What the SDK made of the request.
        request: The same, below the SDK.
    """

    def __init__(self, host: Host, function: Function[Any, Any], ctx: inngest.Context, request: Request) -> None:
        super().__init__()
        self._host = host
        self._function = function
        self._request = request
        self._event, self._origin = _event_of(function, ctx)
        self.run_id = self._origin.run or ctx.run_id
        self._line = tuple(dict.fromkeys((*self._origin.line, self.run_id, ctx.run_id)))
        self._known, self._records = self._read()

    def _read(self) -> tuple[int, list[StepRecord]]:
        """How many records this worker has seen before, and all of them."""
        request, known = self._request, self._host.known
        stack, seen = known.get(self.run_id, ([], []))
        if request.stack[: len(stack)] != stack:
            stack, seen = [], []
        records = list(seen)
        for data in request.memos(len(stack)):
            record = read_memo(data, self.run_id, len(records))
            if record is not None:
                records.append(record)
        known[self.run_id] = (request.stack, records)
        return len(seen) if seen else max(0, len(records) - 1), records

    async def run(self) -> Any:
        """The run's result as JSON data."""
        own = [record for record in self._records if not record.key]
        if own and own[-1].status == "failed":
            raise RunFailed(own[-1].error or {}, "")
        if not self._records or not self._records[-1].key:
            await self._begin()
        failures = len(own)
        hold = self.hold if self._host.held.seconds else None
        steps = InngestSteps(
            self._host, self._function, self.run_id, self._request, self._records, self._line, self._known, hold
        )
        if own and own[-1].due is not None:
            await steps._sleep_until(f"run~wait{failures}", own[-1].due)
        try:
            output = await self._attempt(steps, failures + 1)
        except SkipInterrupt:
            self._lost("another step")
        except Exception as error:
            await self._failed(steps, failures + 1, error)
        if self._request.target is not None:
            self._lost("the end")
        await self._pass("before_result")
        return write_result(output)

    async def _begin(self) -> None:
        origin = self._origin
        if origin.parent is not None and self._host.probe is not None and not self._records:
            point = Point("child_started", self._function.id, origin.parent, origin.key)
            await pass_point(self._host.probe, point)
        await self._pass("before_first")

    async def _attempt(self, steps: InngestSteps, attempt: int) -> str:
        function, host = self._function, self._host
        context = Context(
            step=steps,
            event=self._event,
            input=function.input.validate(self._event.data, what=f"the input of {function.id!r}"),
            run_id=self.run_id,
            attempt=attempt,
            logger=RunLogger(function.id, self.run_id, host.redactor, lambda: steps.replaying),
            resources=host.resources,
        )
        value = await function.handler(context)
        steps.check_end()
        output = host.redactor.text(function.output.encode(value, step="", limit=host.max_payload_bytes))
        function.output.decode(output, step="")
        return output

    async def _failed(self, steps: InngestSteps, failures: int, error: Exception) -> NoReturn:
        host, function = self._host, self._function
        error = steps.refusal or error
        data = host.redactor.data(error_to_json(error))
        if self._request.target is not None:
            self._give_up(data)
        if failures <= function.retries and is_retriable(error):
            delay = function.retry_policy.next_delay(error, failures, derive_id("run", self.run_id, ""))
            await steps.retry_run(failures, data, host.now() + delay)
        if not isinstance(error, DurablyError) or isinstance(error, NonDeterminismError):
            logger.error("run %s of %r failed: %s", self.run_id, function.id, host.redactor.text(str(error)))
        await self._pass("before_result")
        raise RunFailed(data, host.redactor.text(text_of(error)))

    def _lost(self, asked: str) -> NoReturn:
        """The step that Inngest planned and now wants run is not in the code: the run must not go on without it."""
        error = NonDeterminismError(step=self._request.target or "", recorded="a planned step", asked=asked)
        self._give_up(error_to_json(error))

    def _give_up(self, data: dict[str, Any]) -> NoReturn:
        if self._request.attempt == 0:
            # It may have been an older state of the run: asked again, Inngest sends the newest.
            raise inngest.RetryAfterError(str(data.get("message") or data["type"]), 1000, quiet=True)
        record = StepRecord(self.run_id, 0, "", "run", "failed", error=data, at=round(self._host.now(), 3))
        self._request.settle_target("failed", write_memo(record))

    async def _pass(self, name: str) -> None:
        if self._host.probe is not None:
            await pass_point(self._host.probe, Point(name, self._function.id, self.run_id, ""))


def _event_of(function: Function[Any, Any], ctx: inngest.Context) -> tuple[Event, Origin]:
    event, origin = from_wire(ctx.event.model_dump())
    if function.input.type is FailedRun and event.name == FAILED_NAME:
        return _failed_event(event, function.id.removesuffix("-failure")), Origin()
    if function.batch is not None:
        event = event.model_copy(update={"data": [from_wire(each.model_dump())[0].data for each in ctx.events]})
    return event, origin


def _failed_event(event: Event, function: str) -> Event:
    """What a failure handler is told, from Inngest's own event."""
    data = event.data
    cause, origin = from_wire(data["event"])
    failed = FailedRun(
        run_id=origin.run or data["run_id"],
        function=function,
        event=cause,
        error=error_data(data.get("error")),
    )
    return Event("durably/function.failed", failed.model_dump(mode="json"), id=event.id)
