"""The activity side: one attempt of a step's body, on any worker of the task queue.

One dynamic activity serves every step, so that each bears its own id in Temporal's pages. Temporal retries; how often
and when is said here, by the same rules as on every other engine. A crash is no failure: the count of failures travels
in the heartbeat details, which Temporal keeps from attempt to attempt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowQueryFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from durably.backends.temporal.host import TemporalHost
from durably.backends.temporal.logged_failure import LoggedFailure
from durably.backends.temporal.payloads import (
    ARGUMENT,
    ATTEMPT,
    GIVEN_BACK,
    INPUT,
    NO_STEP,
    REFERENCE,
    ActivityRequest,
    failure,
    metadata_of,
    payload,
    text_of,
)
from durably.backends.temporal.registry import StepFunctionNotFoundError, decode_argument, parameter_types
from durably.core import DefinitionError, DurablyError, Function, SerializationError
from durably.core.attempts import StepCall, run_step, step_retry_delay
from durably.core.cause import Cause
from durably.core.errors import InterruptSignal, Signal, SuspendSignal, error_to_json
from durably.core.failure_log import log_failed_step
from durably.core.history import RecordStatus, StepRecord
from durably.core.messages import Transcript
from durably.core.serialization import return_type
from durably.core.step_errors import crashed, final_error

__all__ = ["StepActivities"]

SHORTEST = 0.001
"""The shortest delay between attempts, in seconds: Temporal takes 0 for "not given"."""


class StepActivities:
    """The activities of one worker.

    Args:
        host: The worker.
    """

    def __init__(self, host: TemporalHost) -> None:
        self._host = host
        self._running: set[asyncio.Task[Any]] = set()

    @activity.defn(dynamic=True)
    async def step(self, args: Sequence[RawValue]) -> RawValue:
        """One attempt of a step."""
        attempt = _StepAttempt(self._host, ActivityRequest.from_payload(args[0]), activity.info())
        self._enter()
        try:
            return await attempt.run(args[1:])
        except asyncio.CancelledError:
            attempt.check_alive()
            if activity.is_worker_shutdown():
                raise attempt.given_back("the worker stopped before the body ended") from None
            raise
        except (SuspendSignal, InterruptSignal) as signal:
            raise attempt.given_back("the worker stops, or was stopped for longer than its heartbeat") from signal
        except Signal as signal:
            self._host.crash(signal)
            attempt.check_alive()
            raise ApplicationError(repr(signal), type=type(signal).__name__) from signal

    def _enter(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            # Not before the task is done: it still has to report, and a process that is gone reports nothing.
            task.add_done_callback(self._running.discard)

    def cut_off(self) -> None:
        """End the bodies that are running, as the end of the process would."""
        for task in list(self._running):
            task.cancel()


class _StepAttempt:
    """One attempt of one step.

    Args:
        host: The worker.
        request: What the workflow asked for.
        info: The activity, which is the current one.
    """

    def __init__(self, host: TemporalHost, request: ActivityRequest, info: activity.Info) -> None:
        self._host = host
        self._request = request
        self._info = info
        self._run_id = info.workflow_id or ""
        said = [*info.heartbeat_details]
        self._failures = int(said[0]) if said else request.failures
        # A crash reports nothing: what is missing among the attempts before this one.
        self._reported = int(said[1]) if len(said) > 1 else self._failures - request.failures
        self._crashes = request.crashes if info.is_local else info.attempt - 1 - self._reported
        self._heartbeat = _Heartbeat(info, self._failures, self._reported)
        self._number = info.attempt + request.failures + request.lost + request.earlier
        self._cause = Cause(**request.cause) if request.cause else None
        self._is_step = not request.is_system and not info.activity_id.startswith(NO_STEP)

    async def run(self, args: Sequence[RawValue]) -> RawValue:
        """Find the body and run it; its value as a payload."""
        try:
            call = await self._call(args)
            self._check_crashes(call.key)
            return await self._run(call)
        except ApplicationError:
            raise
        except Exception:  # no body of this name here, or nobody answers for the workflow: another attempt follows
            self._report(self._failures)
            raise
        finally:
            self._heartbeat.stop()

    def _check_crashes(self, key: str) -> None:
        """Fail the step if more crashes cut it off than its limit allows."""
        limit, crashes = self._request.crash_limit, self._crashes
        if limit is not None and crashes > limit and not self._request.once:
            since = self._info.scheduled_time.timestamp()
            final = crashed(key, self._failures, crashes, since)
            self._tell("failed", 0.0, error=error_to_json(final))
            raise failure(final, self._host.environment.redactor, self._request.input)

    def _report(self, failures: int) -> None:
        """Let the next attempt, on whatever worker, know that this one ended with a report."""
        if not self._info.is_local and self._host.crash.signal is None:
            activity.heartbeat(failures, self._reported + 1)

    def given_back(self, why: str) -> ApplicationError:
        """The failure that is none: another worker takes the step over at once, and nothing counts as a crash."""
        self._report(self._failures)
        if self._info.is_local:
            given, redactor = (SHORTEST, self._request.input), self._host.environment.redactor
            return failure(RuntimeError(why), redactor, *given, retriable=True, delay=_at_least(0))
        return ApplicationError(why, type=GIVEN_BACK, next_retry_delay=_at_least(0))

    def _before_body(self) -> None:
        """Unwind if this worker was stopped for so long that the body begins, or began, elsewhere."""
        if self._heartbeat.is_missed():
            raise SuspendSignal

    async def _run(self, call: StepCall) -> RawValue:
        host, info, request, number = self._host, self._info, self._request, self._number
        observers = host.environment.observers
        started = observers.now() if observers.steps else 0.0
        try:
            output = await run_step(
                call,
                host.environment,
                function=info.workflow_type or "",
                run_id=self._run_id,
                attempt=number,
                failures=self._failures,
                kind="step" if self._is_step or not observers.steps else None,
                beats=True,
                before_body=self._before_body,
                cause=self._cause,
            )
        except Exception as error:
            # From nothing: Temporal would keep the cause, and what is secret in it.
            raise self._failed(call, error, started) from None
        self.check_alive()
        if observers.steps:
            self._tell("completed", started, output=output.text)
        counted = {ATTEMPT: str(number)} if info.is_local and number > 1 else {}
        return payload(output.text, **{INPUT: request.input, **counted})

    def _failed(self, call: StepCall, error: Exception, started: float) -> ApplicationError:
        """The failure that says whether, and when, another attempt follows."""
        redactor, failures = self._host.environment.redactor, self._failures + 1
        function = self._host.functions.get(self._info.workflow_type or "") or _UNKNOWN
        delay = step_retry_delay(call, function, self._run_id, failures, error)
        self.check_alive()
        name = self._info.workflow_type or ""
        log_failed_step(call.key, name, self._run_id, self._number, error, delay, redactor.text)
        if delay is None:
            final = final_error(call.key, failures, error, redactor.text)
            self._tell("failed", started, error=error_to_json(final, redactor.text))
            return failure(final, redactor, self._request.input, kind=LoggedFailure)
        self._tell("retrying", started, error=error_to_json(error, redactor.text), delay=delay)
        self._report(failures)
        given = (delay, self._request.input)
        return failure(error, redactor, *given, retriable=True, delay=_at_least(delay), kind=LoggedFailure)

    def _tell(self, status: RecordStatus, started: float, *, delay: float | None = None, **fields: Any) -> None:
        """Tell observers what this attempt came to. Who runs the body tells, since each attempt may be elsewhere."""
        if not self._is_step:
            return
        observers = self._host.environment.observers
        now = observers.now()
        fields |= {"attempt": self._number, "at": now, "took": now - started if started else 0.0}
        fields["due"] = None if delay is None else now + delay
        record = StepRecord(self._run_id, 0, self._info.activity_id, "step", status, **fields)
        observers.tell_of(record, self._info.workflow_type or "", self._cause)

    # -- the body and its arguments

    async def _call(self, args: Sequence[RawValue]) -> StepCall:
        """The body and its arguments, wherever they are."""
        info, request = self._info, self._request
        key = info.activity_id
        pending = self._host.pending.get((info.workflow_run_id or "", key))
        if info.is_local:
            if pending is None:
                raise StepFunctionNotFoundError(
                    f"the closure of step {key!r} is gone: its workflow has left this worker"
                )
            return pending
        try:
            fn = self._host.registry.find(request.body)
            types = parameter_types(fn, len(args))
            values = [
                await self._argument(index, value, tp, pending)
                for index, (value, tp) in enumerate(zip(args, types, strict=True))
            ]
            return StepCall.of(key, fn, tuple(values), _written_as(fn), request.retries, request.timeout, request.once)
        except (DurablyError, TypeError, ValueError, NameError) as error:  # another attempt would find the same
            raise failure(error, self._host.environment.redactor, request.input) from None

    async def _argument(self, index: int, value: RawValue, tp: Any, pending: StepCall | None) -> Any:
        """An argument: as it came, or, if it is large, from this process's memory or from the workflow."""
        reference = metadata_of(value, REFERENCE)
        if reference is None:
            return decode_argument(text_of(value), tp, step=self._info.activity_id)
        if pending is not None:
            here = pending.args[index]
            if isinstance(here, Transcript) and here.__digest__() == reference:
                return here
        return decode_argument(await self._large_argument(index), tp, step=self._info.activity_id)

    async def _large_argument(self, index: int) -> str:
        """The JSON text of a large argument, from the workflow, piece by piece.

        Raises:
            SerializationError: If the workflow cannot give it.
            RPCError: If no worker answers for the workflow; the attempt is repeated.
        """
        info = self._info
        handle = self._host.client.get_workflow_handle(info.workflow_id or "", run_id=info.workflow_run_id)
        pieces: list[str] = []
        more = True
        while more:
            try:
                piece, more = await handle.query(
                    ARGUMENT, args=[info.activity_id, index, len(pieces)], result_type=list
                )
            except WorkflowQueryFailedError as error:
                raise SerializationError(f"its argument cannot be had: {error}", step=info.activity_id) from None
            pieces.append(piece)
        return "".join(pieces)

    # -- for the harness

    def check_alive(self) -> None:
        """End an activity of a dead worker without a word to the server."""
        if self._host.crash.signal is not None:
            if self._info.is_local:  # the workflow hears of it, but cannot tell
                raise ApplicationError("this worker has crashed", non_retryable=True)
            activity.raise_complete_async()


def _written_as(fn: Callable[..., Any]) -> Any:
    """The type that a body's value is written as, or ``None`` for its return annotation."""
    try:
        return_type(fn)
    except DefinitionError:  # the workflow has output_type=, or it would have refused the step
        return Any
    return None


class _Heartbeat:
    """Tells Temporal that this worker is alive, so that it notices soon when it is not.

    Args:
        info: The activity, which is the current one.
        counts: How many attempts have failed, and how many ended with a report.
    """

    def __init__(self, info: activity.Info, *counts: int) -> None:
        self._counts = counts
        self._last = time.time()
        self._missed = False
        self._timeout = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        if info.heartbeat_timeout is not None and not info.is_local:
            self._timeout = info.heartbeat_timeout.total_seconds()
            self._interval = self._timeout / 4
            self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def _beat(self) -> None:
        # Each heartbeat replaces the details of the one before: without the count, failures would be forgotten.
        self.is_missed()
        self._last = time.time()
        activity.heartbeat(*self._counts)
        self._wait()

    def is_missed(self) -> bool:
        """Whether the process was ever stopped for so long that Temporal has taken the attempt for lost."""
        self._missed = self._missed or time.time() - self._last >= self._timeout
        return self._missed

    def stop(self) -> None:
        """The attempt is over."""
        if self._timer is not None:
            self._timer.cancel()


async def _unserved(context: Any) -> None:
    """In the place of code that this worker does not have."""


_UNKNOWN: Function[Any, Any] = Function("unknown", _unserved)
"""In the place of a function this worker does not serve: its retries and delays are the defaults."""


def _at_least(delay: float) -> timedelta:
    return timedelta(seconds=max(SHORTEST, delay))
