"""The activity side: one attempt of a step's body, on any worker of the task queue.

One dynamic activity serves every step, so that each bears its own id in Temporal's pages. Temporal retries; how often
and when is said here, by the same rules as on every other engine. A crash is no failure: the count of failures travels
in the heartbeat details, which Temporal keeps from attempt to attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from durably.backends.temporal.host import Host
from durably.backends.temporal.payloads import ATTEMPT, INPUT, REFERENCE, Call, failure, note, raw, text_of
from durably.backends.temporal.registry import BodyNotFoundError, decode_argument, parameter_types
from durably.backends.temporal.system import SystemBodies
from durably.core import DurablyError, Function, StepTimeoutError
from durably.core.attempts import Body, run_body
from durably.core.errors import Signal, is_retriable
from durably.core.ids import derive_id
from durably.core.messages import Transcript
from durably.core.step_errors import final_error
from durably.core.steps import Point, Probe, StepInfo

__all__ = ["StepActivities"]

SOON = 0.001
"""The shortest delay between attempts: Temporal takes 0 for "not given"."""


class StepActivities:
    """The activities of one worker.

    Args:
        host: What the worker serves.
        system: What the library itself does in activities.
    """

    def __init__(self, host: Host, system: SystemBodies) -> None:
        self._host = host
        self._system = system

    @activity.defn(dynamic=True)
    async def step(self, args: Sequence[RawValue]) -> RawValue:
        """One attempt of a step."""
        self._host.crash.enter()
        call = Call.from_raw(args[0])
        info = activity.info()
        failures = _failures(info, call)
        beats = _Heartbeat(info, failures)
        try:
            return await self._attempt(await self._body(call, args[1:], info), call, info, failures)
        except asyncio.CancelledError:
            self._host.crash.check()
            if activity.is_worker_shutdown():
                raise ApplicationError(
                    "the worker stopped before the body ended", type="WorkerShutdown", next_retry_delay=_soon(0)
                ) from None
            raise
        except Signal as signal:
            self._host.crash(signal)
            self._host.crash.check()
            raise ApplicationError(repr(signal), type=type(signal).__name__) from signal
        finally:
            beats.stop()

    async def _attempt(self, body: Body, call: Call, info: activity.Info, failures: int) -> RawValue:
        host = self._host
        probe = host.probe()
        beat = None if probe is None else partial(_in_body, probe, info)
        attempt = info.attempt + call.failures + call.lost
        step = StepInfo(_run_id(info), body.key, attempt, host.resources, beat)
        try:
            value = await run_body(body, step, probe=probe, function=info.workflow_type or "", threads=True)
            output = host.redactor.text(body.codec.encode(value, step=body.key, limit=host.max_payload_bytes))
            body.codec.decode(output, step=body.key)
        except Exception as error:
            # From nothing: Temporal would keep the cause, and what is secret in it.
            raise self._failed(body, call, info, failures + 1, error) from None
        host.crash.check()
        counted = {ATTEMPT: str(attempt)} if info.is_local and attempt > 1 else {}
        return raw(output, **{INPUT: call.input, **counted})

    def _failed(self, body: Body, call: Call, info: activity.Info, failures: int, error: Exception) -> ApplicationError:
        function = self._host.functions.get(info.workflow_type or "") or _UNKNOWN
        retries = function.retries if call.retries is None else call.retries
        timed_out = isinstance(error, StepTimeoutError) and error.step == body.key
        self._host.crash.check()
        if failures > retries or call.once or not (timed_out or is_retriable(error)):
            return failure(final_error(body.key, failures, error), self._host.redactor, call.input)
        delay = function.retry_policy.next_delay(error, failures, derive_id("effect", _run_id(info), body.key))
        if not info.is_local:
            activity.heartbeat(failures)
        return failure(error, self._host.redactor, delay, call.input, retriable=True, delay=_soon(delay))

    async def _body(self, call: Call, args: Sequence[RawValue], info: activity.Info) -> Body:
        """The body and its arguments, wherever they are."""
        key = info.activity_id
        kept = self._host.shelf.get((info.workflow_run_id or "", key))
        if info.is_local:
            if kept is None:
                raise BodyNotFoundError(f"the closure of step {key!r} is gone: its workflow has left this worker")
            return kept
        try:
            fn = self._system.find(call.body) or self._host.names.find(call.body)
            types = parameter_types(fn, len(args))
            values = [
                await self._argument(index, value, tp, kept, info)
                for index, (value, tp) in enumerate(zip(args, types, strict=True))
            ]
            return Body.of(key, fn, tuple(values), None, call.retries, call.timeout, call.once)
        except (DurablyError, TypeError, ValueError, NameError) as error:  # another attempt would find the same
            raise failure(error, self._host.redactor, call.input) from None

    async def _argument(self, index: int, value: RawValue, tp: Any, kept: Body | None, info: activity.Info) -> Any:
        """An argument: as it came, or, if it is large, from this process's memory or from the workflow."""
        reference = note(value, REFERENCE)
        if reference is None:
            return decode_argument(text_of(value), tp, step=info.activity_id)
        if kept is not None and isinstance(here := kept.args[index], Transcript) and here.__digest__() == reference:
            return here
        text = await self._host.ask(info, index)
        return decode_argument(text, tp, step=info.activity_id)


def _in_body(probe: Probe, info: activity.Info) -> None:
    pause = probe(Point("in_body", info.workflow_type or "", _run_id(info), info.activity_id))
    if asyncio.iscoroutine(pause):
        pause.close()  # a body that only reports its progress cannot be made to wait


_UNKNOWN: Function[Any, Any] = Function("unknown", run_body)  # type: ignore[arg-type]
"""In the place of a function this worker does not serve: its retries and delays are the defaults."""


def _failures(info: activity.Info, call: Call) -> int:
    details = info.heartbeat_details
    return int(details[0]) if details else call.failures


def _run_id(info: activity.Info) -> str:
    return info.workflow_id or ""


def _soon(delay: float) -> timedelta:
    return timedelta(seconds=max(SOON, delay))


class _Heartbeat:
    """Tells Temporal that this worker is alive, so that it notices soon when it is not.

    Args:
        info: The activity, which is the current one.
        failures: How many attempts have failed.
    """

    def __init__(self, info: activity.Info, failures: int) -> None:
        self._failures = failures
        self._timer: asyncio.TimerHandle | None = None
        if info.heartbeat_timeout is not None and not info.is_local:
            self._interval = info.heartbeat_timeout.total_seconds() / 4
            self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._beat)

    def _beat(self) -> None:
        activity.heartbeat(self._failures)
        self._wait()

    def stop(self) -> None:
        """The attempt is over."""
        if self._timer is not None:
            self._timer.cancel()
