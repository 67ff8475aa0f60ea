"""Attempts: one execution of a step's body, or of a whole function, by the rules that are the same on every engine.

Owns what happens around user code: its context and arguments, points for the harness, the value written as JSON,
redacted and read back, what an exception means, and whether another attempt follows. Does not own where the outcome is
kept, nor how time passes between two attempts: that is what engines differ in.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from durably.core.body_threads import BodyThreads, Outcome
from durably.core.context import Context
from durably.core.error_text import error_text, type_name
from durably.core.errors import (
    DurablyError,
    NonRetriableError,
    Signal,
    StepTimeoutError,
    is_retriable,
)
from durably.core.events import Event
from durably.core.functions import Function
from durably.core.ids import derive_id
from durably.core.run_events import read_input
from durably.core.run_logger import RunLogger
from durably.core.secrets import Redactor
from durably.core.serialization import Codec, codec_for, return_type
from durably.core.steps import Duration, Point, Probe, StepAPI, StepInfo, _current

__all__ = [
    "Environment",
    "FunctionSteps",
    "StepCall",
    "StepOutput",
    "as_exception",
    "function_retry_delay",
    "run_function",
    "run_step",
    "seconds",
    "step_retry_delay",
]


UNWIND_SECONDS = 5.0
"""How long a body that is cut off may take to unwind before it is left behind."""


@dataclass(slots=True, kw_only=True)
class Environment:
    """What all attempts on one worker share.

    Attributes:
        resources: Clients, pools and secrets by name, for bodies. Never recorded.
        redactor: Masks secrets in all that is written.
        max_payload_bytes: The largest value a step or a function may return, as JSON.
        threads: Whether a sync body may leave the event loop's thread.
        probe: Where the harness looks on, or ``None``.
        body_threads: Where sync bodies run.
        bodies: The tasks of the bodies that run now, so that the harness can end them with the worker.
    """

    resources: Mapping[str, Any]
    redactor: Redactor
    max_payload_bytes: int
    threads: bool = True
    probe: Probe | None = None
    body_threads: BodyThreads = field(default_factory=BodyThreads)
    bodies: set[asyncio.Task[Outcome]] = field(default_factory=set)

    async def pass_point(self, name: str, function: str, run_id: str, key: str = "") -> None:
        """Report a point and wait where the harness wants to wait."""
        if self.probe is not None:
            pause = self.probe(Point(name, function, run_id, key))
            if pause is not None:
                await pause


@dataclass(slots=True)
class StepCall:
    """What ``step.run`` was asked to do.

    Attributes:
        key: The step key.
        fn: The body.
        args: Its arguments.
        codec: Writes and reads its value.
        retries: Further attempts, or ``None`` for the function's.
        timeout: Seconds one attempt may take, or ``None``.
        at_most_once: Whether it must never run twice.
        is_async: Whether calling it gives an awaitable.
    """

    key: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    codec: Codec
    retries: int | None
    timeout: float | None
    at_most_once: bool
    is_async: bool

    @classmethod
    def of(
        cls,
        key: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        output_type: Any = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
    ) -> StepCall:
        """Check what the caller gave and look up how the value is written."""
        if not callable(fn):
            raise TypeError(f"step {key!r}: pass the function itself and its arguments, not {fn!r}")
        if retries is not None and retries < 0:
            raise ValueError(f"step {key!r}: retries must be 0 or more, not {retries}")
        codec, is_async = _signature(fn)
        if output_type is not None:
            codec = codec_for(output_type)
        return cls(key, fn, args, codec, retries, seconds(timeout), at_most_once, is_async)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What an attempt of a step came to.

    Attributes:
        text: The value as it is recorded: JSON, without secrets.
        value: The same, read back: what the caller gets, now and on every replay.
    """

    text: str
    value: Any


class FunctionSteps(StepAPI):
    """The steps of one pass of a function's code, and what an attempt asks of them besides."""

    @property
    @abstractmethod
    def replaying(self) -> bool:
        """Whether the code that asks, in its own branch, is still among its recorded steps."""

    @property
    @abstractmethod
    def refusal(self) -> DurablyError | None:
        """Why the code may not go on: it does not match the records, or ran two steps of one branch at once."""

    @abstractmethod
    def is_ending(self) -> bool:
        """Whether the engine itself cancels this code now."""

    @abstractmethod
    def check_end(self) -> None:
        """Refuse an end of the code that leaves recorded steps over, or that swallowed a refusal."""


# -- steps


async def run_step(
    call: StepCall,
    environment: Environment,
    *,
    function: str,
    run_id: str,
    attempt: int,
    beat: Callable[[], None] | None = None,
) -> StepOutput:
    """Run one attempt of a body and write down what it gave.

    Args:
        call: The step.
        environment: The worker's.
        function: The id of the durable function, for the points.
        run_id: The run.
        attempt: The number of this execution, from 1.
        beat: What ``current_step().heartbeat()`` calls, or ``None``.

    Raises:
        StepTimeoutError: If it took longer than its timeout. What it returns later is dropped.
        SerializationError: If the value has no JSON form, is too large, or cannot be read back.
        Exception: Whatever the body raised. ``SystemExit`` and ``StopIteration`` come out as ``RuntimeError``, another
            ``BaseException`` as ``NonRetriableError``: they must not end the worker.
        KeyboardInterrupt: If the process is to end.
    """
    token = _current.set(StepInfo(run_id, call.key, attempt, environment.resources, beat))
    try:
        if environment.probe is not None:
            await environment.pass_point("before_body", function, run_id, call.key)
        value = await _contained(call, environment)
        if environment.probe is not None:
            await environment.pass_point("after_effect", function, run_id, call.key)
    finally:
        _current.reset(token)
    limit, redact = environment.max_payload_bytes, environment.redactor.text
    return StepOutput(*call.codec.round_trip(value, step=call.key, limit=limit, redact=redact))


def step_retry_delay(
    call: StepCall, function: Function[Any, Any], run_id: str, failures: int, error: Exception
) -> float | None:
    """Seconds until the next attempt of a step that failed, or ``None`` if there is none.

    Args:
        call: The step.
        function: The function it belongs to: its retries and delays hold where the step has none of its own.
        run_id: The run.
        failures: How many attempts failed, this one included.
        error: Why this one did.
    """
    retries = function.retries if call.retries is None else call.retries
    # A timeout of this very step is worth another try; one of a step further down is an error like others.
    timed_out = isinstance(error, StepTimeoutError) and error.step == call.key
    if failures > retries or call.at_most_once or not (timed_out or is_retriable(error)):
        return None
    return function.retry_policy.next_delay(error, failures, derive_id("effect", run_id, call.key))


async def _contained(call: StepCall, environment: Environment) -> Any:
    """The value of a body. Whatever it does ends this attempt, and nothing else."""
    # A task of its own: a body that cancels "its" task must not cancel the engine's, and one that does not end must not
    # hold up the run.
    body = _Body(call, environment)
    task = asyncio.create_task(body.run())
    environment.bodies.add(task)
    task.add_done_callback(environment.bodies.discard)
    try:
        if body.in_thread:  # its time counts from when it begins, not from when it asks for a thread
            waiting: set[asyncio.Future[Any]] = {task, body.began}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait({task}, timeout=call.timeout)
    except BaseException:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=UNWIND_SECONDS)
        raise
    if not done:
        task.cancel()
        task.add_done_callback(_drop)
        raise StepTimeoutError(
            step=call.key,
            attempts=1,
            error_type="TimeoutError",
            message=f"the attempt took longer than {call.timeout:g} seconds",
        )
    if task.cancelled():
        raise NonRetriableError("the body was cancelled from inside: it cancelled its own task, or awaited another one")
    return _value_of(task.result())


class _Body:
    """One execution of a body.

    Args:
        call: The step.
        environment: The worker's.
    """

    def __init__(self, call: StepCall, environment: Environment) -> None:
        self._call = call
        self._environment = environment
        # Without threads a sync body stands in the loop, where no timeout reaches it; with one it gets a thread.
        self.in_thread = not call.is_async and (environment.threads or call.timeout is not None)
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> Outcome:
        """Run it, here or in a thread; what it raised is part of the outcome."""
        try:
            if self.in_thread:
                outcome = await self._run_in_thread()
            else:
                outcome = Outcome(self._call.fn(*self._call.args))
            if outcome.error is None and inspect.isawaitable(outcome.value):
                return Outcome(await outcome.value)
            return outcome
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: a task that raises it ends the event loop
            return Outcome(error=error)

    async def _run_in_thread(self) -> Outcome:
        call = self._call
        thread = await self._environment.body_threads.start(call.key, call.fn, *call.args)
        self.began.set_result(None)
        try:
            await asyncio.wait({thread.done})
        except asyncio.CancelledError:
            thread.abandon()
            raise
        return thread.done.result()


def _value_of(outcome: Outcome) -> Any:
    if outcome.error is None:
        return outcome.value
    error = outcome.error
    if isinstance(error, Signal | Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        raise error
    raise as_exception(error) from error


def as_exception(error: BaseException) -> Exception:
    """An error that may end an attempt, but must not end the worker, nor be taken for the end of a coroutine."""
    said = f"{type_name(error)}: {error_text(error)}"
    if isinstance(error, StopIteration | StopAsyncIteration | SystemExit):
        return RuntimeError(said)
    return error if isinstance(error, Exception) else NonRetriableError(said)


def _drop(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


# -- functions


async def run_function(
    function: Function[Any, Any],
    steps: FunctionSteps,
    event: Event,
    environment: Environment,
    *,
    run_id: str,
    attempt: int,
) -> str:
    """Run one attempt of a function's code over its steps; its result as it is recorded, JSON without secrets.

    Args:
        function: The function.
        steps: Its steps, of which some may be recorded already.
        event: What started the run.
        environment: The worker's.
        run_id: The run.
        attempt: The number of this attempt, from 1.

    Raises:
        Exception: Whatever failed the attempt. A refusal of the code (it does not fit the records, or ran two steps of
            one branch at once) comes before what the code made of it: it may have wrapped or swallowed it.
    """
    try:
        context = Context(
            step=steps,
            event=event,
            input=read_input(function, event),
            run_id=run_id,
            attempt=attempt,
            logger=RunLogger(function.id, run_id, environment.redactor, lambda: steps.replaying),
            resources=environment.resources,
        )
        value = await function.handler(context)
        steps.check_end()
        limit, redact = environment.max_payload_bytes, environment.redactor.text
        text, _ = function.output.round_trip(value, step="", limit=limit, redact=redact)
        return text
    except (Signal, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _own_task_is_cancelled():
            if steps.is_ending():
                raise
            _uncancel()
        failure = steps.refusal or as_exception(error)
        if failure is error:
            raise
        raise failure from error


def function_retry_delay(function: Function[Any, Any], run_id: str, failures: int, error: Exception) -> float | None:
    """Seconds until the next attempt of a function that failed, or ``None`` if there is none.

    Args:
        function: The function.
        run_id: The run.
        failures: How many attempts failed, this one included.
        error: Why this one did.
    """
    if failures > function.retries or not is_retriable(error):
        return None
    return function.retry_policy.next_delay(error, failures, derive_id("run", run_id, ""))


def _own_task_is_cancelled() -> bool:
    """Whether it is this task that is being cancelled, not something that the user's code awaited."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def _uncancel() -> None:
    """Take back that the user's code cancelled this task: it is the engine's, and goes on."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


# -- signatures and durations

_signatures: WeakKeyDictionary[Any, tuple[Codec, bool]] = WeakKeyDictionary()


def _signature(fn: Callable[..., Any]) -> tuple[Codec, bool]:
    """How a callable's value is written, and whether it is async; looked at once for each function."""
    function = getattr(fn, "__func__", fn)
    with suppress(KeyError, TypeError):
        return _signatures[function]
    found = codec_for(return_type(fn)), inspect.iscoroutinefunction(function)
    with suppress(TypeError):  # a callable that cannot be referred to weakly is simply looked at again
        _signatures[function] = found
    return found


def seconds(duration: Duration | None) -> float | None:
    """A duration in seconds.

    Raises:
        ValueError: If it is negative.
    """
    if duration is None:
        return None
    value = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not value >= 0:
        raise ValueError(f"a duration must be 0 seconds or more, not {duration!r}")
    return value
