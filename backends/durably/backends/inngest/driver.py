"""Driving runs: each request of Inngest goes through a run's code until something new is to be kept."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import inngest

from durably.backends.inngest.events import Origin, trigger_event
from durably.backends.inngest.host import InngestHost
from durably.backends.inngest.outcome import RunFailed
from durably.backends.inngest.recorded_steps import StepRecorder
from durably.backends.inngest.records import encode_record, encode_result
from durably.backends.inngest.sdk import Request, ResponseInterrupt, SkipInterrupt
from durably.backends.inngest.steps import InngestSteps
from durably.backends.inngest.suspended_code import SuspendableCode
from durably.core import Event, Function, NonDeterminismError
from durably.core.cause import Cause
from durably.core.errors import CrashLoopError, InterruptSignal, Signal, SuspendSignal, error_to_json
from durably.core.failure_log import log_failed_run
from durably.core.function_attempts import function_retry_delay, run_function
from durably.core.functions import FailedRun, check_event_keys
from durably.core.history import RecordStatus, StepRecord
from durably.core.run_events import FAILED
from durably.core.step_keys import KeyedSteps

__all__ = ["Driver", "RunPass"]


@dataclass(frozen=True, kw_only=True)
class RunPass:
    """One pass of a run's code over its records, begun by one request.

    Attributes:
        run_id: Our id of the run.
        function: Its code.
        event: What started it.
        cause: The same in brief.
        origin: What that says of the run.
        fresh: Whether this attempt of the code has no step yet.
        failures: How often the code itself has failed.
        due: When the next attempt of the code begins, in seconds since 1970, or ``None`` for now.
        error: Why the run has failed, as JSON data, if a request before found a planned step gone; else ``None``.
        code: What answers the requests.
        recorder: Has steps run and kept by Inngest.
        steps: What the code calls.
    """

    run_id: str
    function: Function[Any, Any]
    event: Event
    cause: Cause
    origin: Origin
    fresh: bool
    failures: int
    due: float | None
    error: dict[str, Any] | None
    code: SuspendableCode
    recorder: StepRecorder
    steps: KeyedSteps

    @property
    def interrupt(self) -> BaseException:
        """What ended the request whose code was unwound."""
        return self.code.interrupts[self.steps.root.prefix]

    @property
    def target(self) -> str | None:
        """The hash of the one step that Inngest wants run now, or ``None``."""
        return self.code.request.target


class Driver:
    """Runs the functions of one worker, as Inngest asks.

    Args:
        host: The worker.
    """

    def __init__(self, host: InngestHost) -> None:
        self.host = host

    # -- requests

    async def answer(self, function: Function[Any, Any], ctx: inngest.Context) -> Any:
        """Answer one request.

        Args:
            function: The code.
            ctx: What the SDK made of the request.

        Returns:
            The run's result as JSON data.

        Raises:
            ResponseInterrupt: What tells the SDK of the next step.
            RunFailed: If the run has failed for good.
        """
        suspended = self.host.suspended
        request = Request(ctx)
        code = suspended.take(ctx.run_id, request)
        try:
            if code is not None:
                return await code.resume(request)
            run_pass = self._begin(function, ctx, request)
            code = run_pass.code
            return await code.start(self._drive(run_pass))
        except ResponseInterrupt:
            if code is not None:
                suspended.keep(ctx.run_id, code)
            raise
        except InterruptSignal:
            raise inngest.RetryAfterError("the app stops", 1000, quiet=True) from None  # and Inngest asks again
        except Signal as signal:
            self.host.crash(signal)
            raise

    def _begin(self, function: Function[Any, Any], ctx: inngest.Context, request: Request) -> RunPass:
        event, origin = trigger_event(function, ctx)
        run_id, cause = origin.run or ctx.run_id, self._cause(event)
        cached = self.host.cache.run(run_id, ctx.run_id)
        known = cached.read(run_id, request)
        records = cached.records
        # What has a target runs one step, and nothing comes after it for the same code.
        code = SuspendableCode(request, cached, suspends=self.host.suspended.seconds > 0 and request.target is None)
        recorder = StepRecorder(self.host, function.id, run_id, cause, code, records)
        ancestry = tuple(dict.fromkeys((*origin.ancestry, run_id, ctx.run_id)))
        engine = InngestSteps(
            self.host,
            function,
            run_id=run_id,
            cause=cause,
            ancestry=ancestry,
            known=known,
            code=code,
            recorder=recorder,
        )
        own = [record for record in records if record.kind == "run"]
        last = own[-1] if own else None
        return RunPass(
            run_id=run_id,
            function=function,
            event=event,
            cause=cause,
            origin=origin,
            fresh=not records or records[-1].kind == "run",
            failures=sum(record.status == "retrying" for record in own),
            due=None if last is None else last.due,
            error=None if last is None or last.status != "failed" else last.error,
            code=code,
            recorder=recorder,
            steps=KeyedSteps(engine),
        )

    def _cause(self, event: Event) -> Cause:
        """What began a run. Inngest itself calls the handler of a failure, and knows of no span."""
        cause = Cause.of(event)
        if event.name != FAILED:
            return cause
        failed = FailedRun.model_validate(event.data)
        place = self.host.environment.observers.traceparent(failed.run_id, "", Cause.of(failed.event))
        return replace(cause, traceparent=place)

    # -- one run

    async def _drive(self, run_pass: RunPass) -> Any:
        """Run a function's code over its records, to its end or to an answer."""
        with suppress(SuspendSignal):
            return await self.attempt(run_pass)
        if isinstance(run_pass.interrupt, SkipInterrupt):
            self._target_lost(run_pass, "another step")
        raise run_pass.interrupt

    async def attempt(self, run_pass: RunPass) -> Any:
        """One attempt of a run's code: the run's result as JSON data."""
        root, failures = run_pass.steps.root, run_pass.failures
        if run_pass.error is not None:
            self._tell(run_pass, "failed", error=run_pass.error)
            raise RunFailed(run_pass.error)
        lost = run_pass.code.request.attempt
        # One more than a step is allowed: the last one is for it to fail, if it is a step that kills the process.
        if lost > run_pass.function.crash_limit + 1:
            error = CrashLoopError(crashes=lost, since=self.host.now())
            await self.attempt_failed(run_pass, failures + 1, error)
        if run_pass.fresh:
            await self._pass_first_points(run_pass)
            # A request that is made again was told of by the worker that did not answer it.
            if not failures and not run_pass.code.request.attempt and run_pass.code.first_time(""):
                self._tell(run_pass, "started", output=run_pass.event.model_dump_json())
        if run_pass.due is not None:
            await run_pass.recorder.sleep_until(root, f"run~wait{failures}", run_pass.due)
        try:
            if run_pass.fresh:  # Inngest has taken what is absent at a key for a key of its own
                check_event_keys(run_pass.function, run_pass.event)
            output = await run_function(
                run_pass.function,
                run_pass.steps,
                run_pass.event,
                self.host.environment,
                run_id=run_pass.run_id,
                attempt=failures + 1,
            )
        except Exception as error:
            if root.prefix in run_pass.code.interrupts:
                raise SuspendSignal from error  # raised while it was unwound: the request has its answer, a step
            await self.attempt_failed(run_pass, failures + 1, error)
        if run_pass.target is not None:
            self._target_lost(run_pass, "the end")
        await self._pass_point("before_result", run_pass)
        self._tell(run_pass, "completed", output=output)
        return encode_result(output)

    async def attempt_failed(self, run_pass: RunPass, failures: int, error: Exception) -> NoReturn:
        """Record a failed attempt of a run's code: to be tried again later, or the run's end."""
        function, redact = run_pass.function, self.host.environment.redactor.text
        data = error_to_json(error, redact)
        if run_pass.target is not None and not run_pass.recorder.is_for_retry(failures):
            self._give_up(run_pass, data)
        # That it is tried again is a step of Inngest, too.
        delay = function_retry_delay(function, run_pass.run_id, failures, error) if run_pass.recorder.has_room else None
        log_failed_run(function.id, run_pass.run_id, failures, error, delay, redact)
        if delay is not None:
            due = self.host.now() + delay
            record = run_pass.recorder.record(
                "", "run", "retrying", name=function.id, attempt=failures, error=data, due=due
            )
            await run_pass.recorder.retry_run(run_pass.steps.root, record)
        await self._pass_point("before_result", run_pass)
        self._tell(run_pass, "failed", error=data)
        raise RunFailed(data)

    def _target_lost(self, run_pass: RunPass, asked: str) -> NoReturn:
        """The step that Inngest planned and now wants run is not in the code: the run must not go on without it."""
        error = NonDeterminismError(step=run_pass.target or "", recorded="a planned step", asked=asked)
        self._give_up(run_pass, error_to_json(error))

    def _give_up(self, run_pass: RunPass, data: dict[str, Any]) -> NoReturn:
        request = run_pass.code.request
        if request.attempt == 0:
            # It may have been an older state of the run: asked again, Inngest sends the newest.
            raise inngest.RetryAfterError(str(data.get("message") or data["type"]), 1000, quiet=True)
        # Kept as the step's output, so that the step ends like any other: the next request reads it and fails the run.
        record = StepRecord(run_pass.run_id, 0, "", "run", "failed", error=data, at=round(self.host.now(), 3))
        request.settle_target("failed", encode_record(record))

    def _tell(self, run_pass: RunPass, status: RecordStatus, **fields: Any) -> None:
        """Tell observers how a run goes."""
        function = run_pass.function.id
        record = StepRecord(run_pass.run_id, 0, "", "run", status, name=function, at=self.host.now(), **fields)
        self.host.environment.observers.tell_of(record, function, run_pass.cause)

    async def _pass_first_points(self, run_pass: RunPass) -> None:
        origin = run_pass.origin
        if origin.parent is not None and not run_pass.failures:
            function = run_pass.function.id
            await self.host.environment.pass_point("child_started", function, origin.parent, origin.key)
        await self._pass_point("before_first", run_pass)

    async def _pass_point(self, name: str, run_pass: RunPass) -> None:
        await self.host.environment.pass_point(name, run_pass.function.id, run_pass.run_id)
