"""Attempts: one execution of a step's body, or of a whole function, by the rules that are the same on every engine.

Owns what happens around user code: its context and arguments, points for the harness, the value written as JSON,
redacted and read back, what an exception means, and whether another attempt follows. Does not own where the outcome is
kept, nor how time passes between two attempts: that is what engines differ in.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from durably.core.annotations import awaited, is_lazy, uncached
from durably.core.body_threads import BodyThreads
from durably.core.cause import Cause
from durably.core.context import Context, running
from durably.core.crash_limit import check_crash_limit
from durably.core.durations import duration_seconds
from durably.core.error_text import error_text, type_name
from durably.core.errors import (
    DefinitionError,
    DurablyError,
    InterruptSignal,
    NonRetriableError,
    Signal,
    StepTimeoutError,
    is_retriable,
)
from durably.core.events import Event
from durably.core.functions import Function
from durably.core.history import Kind
from durably.core.ids import derive_id
from durably.core.observer import Observers, StepBegan
from durably.core.run_events import INPUT_STEP, INVOKED, STARTED, read_input
from durably.core.run_logger import RunLogger
from durably.core.secrets import Redactor
from durably.core.serialization import Codec, codec_for, return_type
from durably.core.services import EngineServices
from durably.core.steps import Duration, Point, Probe, StepAPI, StepInfo, _current

__all__ = [
    "Environment",
    "FunctionSteps",
    "StepCall",
    "StepOutput",
    "as_exception",
    "function_retry_delay",
    "interrupt_process",
    "judged_input",
    "run_function",
    "run_step",
    "step_crash_limit",
    "step_retry_delay",
]


BeforeBody = Callable[[], Awaitable[None] | None] | None


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
        observers: Who is told what happens.
        services: What the engine offers to the bodies of agents.
    """

    resources: Mapping[str, Any]
    redactor: Redactor
    max_payload_bytes: int
    threads: bool = True
    probe: Probe | None = None
    body_threads: BodyThreads = field(default_factory=BodyThreads)
    bodies: set[asyncio.Task[Any]] = field(default_factory=set)
    observers: Observers = field(default_factory=Observers)
    services: EngineServices = field(default_factory=EngineServices)

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
        if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 0):
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
    def records_input(self) -> bool:
        """Whether this run may begin with the step that judges its input. Runs of before did not."""

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
    beat = _beat(environment.probe, Point("in_body", function, run_id, call.key)) if beats else None
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
        if environment.observers.steps and kind is not None:
            began = StepBegan(
                run_id=run_id,
                function=function,
                step=call.key,
                kind=kind,
                attempt=attempt,
                at=environment.observers.now(),
                failures=failures,
                cause=cause,
            )
            with environment.observers.around_body(began):
                value = await _contained(call, environment, before_body)
        else:
            value = await _contained(call, environment, before_body)
        if environment.probe is not None:
            await environment.pass_point("after_effect", function, run_id, call.key)
    finally:
        _current.reset(token)
    limit, redact = environment.max_payload_bytes, environment.redactor.text
    return StepOutput(*call.codec.round_trip(value, step=call.key, limit=limit, redact=redact))


def _beat(probe: Probe | None, point: Point) -> Callable[[], None] | None:
    if probe is None:
        return None

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
        task = asyncio.create_task(_call(call, environment, before_body))
        environment.bodies.add(task)
        try:
            return await task
        finally:
            environment.bodies.discard(task)
    except (Exception, Signal):
        raise
    except asyncio.CancelledError:
        if _own_task_is_cancelled():
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
        if isinstance(error, GeneratorExit) and not _is_current(task):
            raise  # this coroutine is thrown away
        raise as_exception(error) from error


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
    if outcome.error is None:
        return outcome.value
    if isinstance(outcome.error, StopIteration):
        raise as_exception(outcome.error) from outcome.error
    raise outcome.error


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
        done, _ = await asyncio.wait({task}, timeout=call.timeout)
    except BaseException:
        task.cancel()
        raise
    if done:
        return task.result()
    task.cancel()
    task.add_done_callback(_drop)
    raise StepTimeoutError(
        step=call.key,
        attempts=1,
        error_type="TimeoutError",
        message=f"the attempt took longer than {call.timeout:g} seconds",
    )


def as_exception(error: BaseException) -> Exception:
    """An error that may end an attempt, but must not end the worker, nor be taken for the end of a coroutine."""
    said = f"{type_name(error)}: {error_text(error)}"
    if isinstance(error, StopIteration | StopAsyncIteration | SystemExit):
        return RuntimeError(said)
    return error if isinstance(error, Exception) else NonRetriableError(said)


def interrupt_process() -> InterruptSignal:
    """Interrupt this process as Ctrl-C does, so that its workers stop in good order; what unwinds the code."""
    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
    return InterruptSignal()


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
    task = asyncio.current_task()
    try:
        context = Context(
            step=steps,
            event=event,
            input=await judged_input(function, steps, event),
            run_id=run_id,
            attempt=attempt,
            logger=RunLogger(function.id, run_id, attempt, environment.redactor, lambda: steps.replaying),
            resources=environment.resources,
        )
        with running(context):
            value = await function.handler(context)
        steps.check_end()
        limit, redact = environment.max_payload_bytes, environment.redactor.text
        text, _ = function.output.round_trip(value, step="", limit=limit, redact=redact)
        return text
    except Signal:
        raise
    except KeyboardInterrupt as error:
        raise interrupt_process() from error
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _own_task_is_cancelled():
            if steps.is_ending():
                raise
            _uncancel()
        if isinstance(error, GeneratorExit) and not _is_current(task):
            # The engine throws the coroutine away: another error would come out wherever that happens.
            raise
        failure = steps.refusal or as_exception(error)
        if failure is error:
            raise
        raise failure from error


async def judged_input(function: Function[Any, Any], steps: FunctionSteps, event: Event) -> Any:
    """The input of a run's code. What an event brings is judged once: in a step, if the verdict might change.

    Args:
        function: The code.
        steps: Its steps.
        event: What started the run.

    Raises:
        SerializationError: If it does not fit the function's input type.
    """
    if event.name in (STARTED, INVOKED) or not function.records_input or not steps.records_input():
        return read_input(function, event)

    async def judge() -> Any:
        return read_input(function, event)

    return await steps.run(INPUT_STEP, judge, output_type=function.input.type)


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


def _is_current(task: asyncio.Task[Any] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no event loop runs
        return False


# -- signatures

_signatures: WeakKeyDictionary[Any, tuple[Codec, bool]] = WeakKeyDictionary()


def _signature(fn: Callable[..., Any], key: str) -> tuple[Codec, bool]:
    """How a callable's value is written, and whether it is async; looked at once for each function."""
    function = getattr(fn, "__func__", fn)
    with suppress(KeyError, TypeError):
        return _signatures[function]
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
