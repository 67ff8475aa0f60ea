"""Attempts: one execution of a step's body, by the rules that are the same on every engine.

Owns what happens around user code: its context and arguments, points for the harness, the value written as JSON,
redacted and read back, what an exception means, and whether another attempt follows. Does not own where the outcome is
kept, nor how time passes between two attempts: that is what engines differ in. Nor attempts of a whole function
(``function_attempts.py``).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from durably.core.annotations import awaited, is_lazy, uncached
from durably.core.cause import Cause
from durably.core.contained_errors import (
    as_exception,
    drop_outcome,
    interrupt_process,
    is_current,
    own_task_is_cancelled,
)
from durably.core.counts import is_count
from durably.core.crash_limit import check_crash_limit
from durably.core.durations import duration_seconds
from durably.core.environment import Environment
from durably.core.errors import (
    DefinitionError,
    NonRetriableError,
    Signal,
    StepTimeoutError,
    is_retriable,
)
from durably.core.functions import Function
from durably.core.history import Kind
from durably.core.ids import derive_id
from durably.core.observer import StepBegan
from durably.core.serialization import Codec, codec_for, return_type
from durably.core.steps import Duration, Point, Probe, StepInfo, _current

__all__ = [
    "StepCall",
    "StepOutput",
    "run_step",
    "step_crash_limit",
    "step_retry_delay",
]


BeforeBody = Callable[[], Awaitable[None] | None] | None


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
        crash_limit: How many crashes it may have been cut off by, or ``None`` for the function's limit.
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
    crash_limit: int | None = None

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
        crash_limit: int | None = None,
    ) -> StepCall:
        """Check what the caller gave and look up how the value is written."""
        if not callable(fn):
            raise TypeError(f"step {key!r}: pass the function itself and its arguments, not {fn!r}")
        if retries is not None and not is_count(retries, 0):
            raise ValueError(f"step {key!r}: retries is a number of further attempts, 0 or more, not {retries!r}")
        if crash_limit is not None:
            try:
                check_crash_limit(crash_limit)
            except ValueError as error:
                raise ValueError(f"step {key!r}: {error}") from None
        # With output_type= the annotation is not looked at: it may name what cannot be resolved.
        found = (_eager(codec_for(output_type), key), _is_async(fn)) if output_type is not None else None
        codec, is_async = found or _signature(fn, key)
        limit = None if timeout is None else duration_seconds(timeout, f"step {key!r}: timeout")
        return cls(key, fn, args, codec, retries, limit, at_most_once, is_async, crash_limit)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What an attempt of a step came to.

    Attributes:
        text: The value as it is recorded: JSON, without secrets.
        value: The same, read back: what the caller gets, now and on every replay.
    """

    text: str
    value: Any


async def run_step(
    call: StepCall,
    environment: Environment,
    *,
    function: str,
    run_id: str,
    attempt: int,
    failures: int = 0,
    kind: Kind | None = "step",
    beats: bool = False,
    before_body: BeforeBody = None,
    cause: Cause | None = None,
) -> StepOutput:
    """Run one attempt of a body and write down what it gave.

    Args:
        call: The step.
        environment: The worker's.
        function: The id of the durable function, for the points.
        run_id: The run.
        attempt: The number of this execution, from 1.
        failures: How many attempts failed before.
        kind: What the body is the body of, for observers; ``None`` if it is no step of the run.
        beats: Whether the harness is told when the body calls ``current_step().heartbeat()``.
        before_body: Called last before the body begins, in its task, and again once a sync body has a thread; what it
            returns is awaited. It raises if this worker may not begin the body any more.
        cause: What began the run, for observers.

    Raises:
        StepTimeoutError: If it took longer than its timeout. What it returns later is dropped.
        SerializationError: If the value has no JSON form, is too large, or cannot be read back.
        Exception: Whatever the body raised. ``SystemExit`` and ``StopIteration`` come out as ``RuntimeError``, another
            ``BaseException`` as ``NonRetriableError``: they must not end the worker.
        InterruptSignal: If the body raised ``KeyboardInterrupt``. The process is interrupted, as by Ctrl-C.
    """
    probe = environment.probe
    beat = None if probe is None or not beats else _beat(probe, Point("in_body", function, run_id, call.key))
    info = StepInfo(
        run_id,
        call.key,
        attempt,
        environment.resources,
        beat,
        function,
        environment.observers,
        environment.max_payload_bytes,
        environment.services,
    )
    token = _current.set(info)
    try:
        if environment.probe is not None:
            await environment.pass_point("before_body", function, run_id, call.key)
        if kind is None or not environment.observers.steps:
            value = await _contained(call, environment, before_body)
        else:
            value = await _observed(call, environment, before_body, info, kind, failures, cause)
        if environment.probe is not None:
            await environment.pass_point("after_effect", function, run_id, call.key)
    finally:
        _current.reset(token)
    limit, redact = environment.max_payload_bytes, environment.redactor.text
    return StepOutput(*call.codec.round_trip(value, step=call.key, limit=limit, redact=redact))


async def _observed(
    call: StepCall,
    environment: Environment,
    before_body: BeforeBody,
    info: StepInfo,
    kind: Kind,
    failures: int,
    cause: Cause | None,
) -> Any:
    """The value of a body whose beginning observers are told, and around which they may put something."""
    began = StepBegan(
        run_id=info.run_id,
        function=info.function,
        step=call.key,
        kind=kind,
        attempt=info.attempt,
        at=environment.observers.now(),
        failures=failures,
        cause=cause,
    )
    with environment.observers.around_body(began):
        return await _contained(call, environment, before_body)


def _beat(probe: Probe, point: Point) -> Callable[[], None]:
    def beat() -> None:
        pause = probe(point)
        if asyncio.iscoroutine(pause):
            pause.close()  # a body that only reports its progress cannot be made to wait

    return beat


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
    timed_out = isinstance(error, StepTimeoutError) and getattr(error, "step", None) == call.key
    if failures > retries or call.at_most_once or not (timed_out or is_retriable(error)):
        return None
    return function.retry_policy.next_delay(error, failures, derive_id("effect", run_id, call.key))


def step_crash_limit(call: StepCall, function: Function[Any, Any]) -> int:
    """How many crashes may cut off a step: its own limit, or else that of its function."""
    return function.crash_limit if call.crash_limit is None else call.crash_limit


async def _contained(call: StepCall, environment: Environment, before_body: BeforeBody = None) -> Any:
    """The value of a body. Whatever it does ends this attempt, and nothing else."""
    # In a task of its own: a body that cancels "its" task must not cancel the engine's.
    try:
        if call.timeout is not None:
            return await _timed(call, environment, before_body)
        # To wait for the task itself is what lets a cancellation of this one reach it at once.
        task = asyncio.get_running_loop().create_task(_call(call, environment, before_body))
        environment.bodies.add(task)
        try:
            return await task
        finally:
            environment.bodies.discard(task)
            del task
    except (Exception, Signal):
        raise
    except asyncio.CancelledError:
        if own_task_is_cancelled():
            raise
        raise NonRetriableError(
            "the body was cancelled from inside: it cancelled its own task, or awaited another that was cancelled"
        ) from None
    except BaseException as error:
        raise as_exception(error) from error


async def _call(
    call: StepCall, environment: Environment, before_body: BeforeBody, began: asyncio.Future[None] | None = None
) -> Any:
    """Run a body, here or in a thread; ``began`` is told when it begins."""
    task = asyncio.current_task()
    try:
        # Here and no earlier: a loop that is held up may come to this task seconds after it was made.
        if before_body is not None and (pause := before_body()) is not None:
            await pause
        if call.is_async:
            return await call.fn(*call.args)
        # Without threads a sync body stands in the loop, where no timeout reaches it; with one it gets a thread.
        if environment.threads or call.timeout is not None:
            value = await _in_thread(call, environment, before_body, began)
        else:
            value = uncached(call.fn)(*call.args)
        return await value if inspect.isawaitable(value) else value
    except KeyboardInterrupt as error:
        # Left to itself it would end the event loop, and cut off every run there is.
        raise interrupt_process() from error
    except (SystemExit, GeneratorExit) as error:
        # A task that raises SystemExit ends the whole event loop, and GeneratorExit the coroutine that waits for it.
        if isinstance(error, GeneratorExit) and not is_current(task):
            raise  # this coroutine is thrown away
        raise as_exception(error) from error
    finally:
        del task  # its error holds this frame: both would stay until the garbage is collected, with all arguments


async def _in_thread(
    call: StepCall, environment: Environment, before_body: BeforeBody, began: asyncio.Future[None] | None
) -> Any:
    body = uncached(call.fn)
    thread = await environment.body_threads.start(call.key, body, *call.args, before_body=before_body)
    if began is not None and not began.done():
        began.set_result(None)
    try:
        await asyncio.wait({thread.done})
    except asyncio.CancelledError:
        thread.abandon()
        raise
    outcome = thread.done.result()
    error, outcome.error = outcome.error, None
    try:
        if error is None:
            return outcome.value
        if isinstance(error, StopIteration):
            raise as_exception(error) from error
        raise error
    finally:
        del error  # it holds this frame, as that of the thread, which had it in its outcome


async def _timed(call: StepCall, environment: Environment, before_body: BeforeBody) -> Any:
    # Left behind when it does not end: a body may swallow its cancellation or sit in a thread, and neither may hold up
    # the run.
    began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_call(call, environment, before_body, began))
    environment.bodies.add(task)
    task.add_done_callback(environment.bodies.discard)
    try:
        if not call.is_async:  # its time counts from when it begins, not from when it asks for a thread
            waiting: set[asyncio.Future[Any]] = {task, began}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            del waiting
        done, _ = await asyncio.wait({task}, timeout=call.timeout)
    except BaseException:
        task.cancel()
        raise
    if done:
        try:
            return task.result()
        finally:
            del task, done  # its error holds this frame
    task.cancel()
    task.add_done_callback(drop_outcome)
    raise StepTimeoutError(
        step=call.key,
        attempts=1,
        error_type="TimeoutError",
        message=f"the attempt took longer than {call.timeout:g} seconds",
    )


_signatures: WeakKeyDictionary[Any, tuple[Codec, bool]] = WeakKeyDictionary()


def _signature(fn: Callable[..., Any], key: str) -> tuple[Codec, bool]:
    """How a callable's value is written, and whether it is async; looked at once for each function."""
    function = getattr(fn, "__func__", fn)
    try:
        return _signatures[function]
    except (KeyError, TypeError):
        pass
    found = _eager(codec_for(awaited(return_type(fn))), key), _is_async(fn)
    with suppress(TypeError):  # a callable that cannot be referred to weakly is simply looked at again
        _signatures[function] = found
    return found


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(getattr(fn, "__func__", fn))


def _eager(codec: Codec, key: str) -> Codec:
    """A codec whose values are whole: items that a body makes, or pydantic checks, one by one come after its end."""
    if is_lazy(codec.type):
        raise DefinitionError(
            f"step {key!r}: its value would be an iterable, whose items are made and checked only when they are used: "
            "return a list and say so, such as list[int]"
        )
    return codec
