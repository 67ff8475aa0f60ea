"""One attempt of one step's body: the part of a step that every engine runs in the same way."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from durably.core.errors import NonRetriableError, Signal, StepTimeoutError
from durably.core.serialization import Codec, codec_for, return_type
from durably.core.steps import Duration, Point, Probe, StepInfo, _current

__all__ = ["Body", "run_body", "seconds"]


@dataclass(slots=True)
class Body:
    """What ``step.run`` was asked to do.

    Attributes:
        key: The step key.
        fn: The callable.
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
        output_type: Any,
        retries: int | None,
        timeout: Duration | None,
        at_most_once: bool,
    ) -> Body:
        """Check what the caller gave and look up how the value is written."""
        if not callable(fn):
            raise TypeError(f"step {key!r}: pass the function itself and its arguments, not {fn!r}")
        if retries is not None and retries < 0:
            raise ValueError(f"step {key!r}: retries must be 0 or more, not {retries}")
        codec, is_async = _signature(fn)
        if output_type is not None:
            codec = codec_for(output_type)
        return cls(key, fn, args, codec, retries, seconds(timeout), at_most_once, is_async)


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


async def run_body(body: Body, info: StepInfo, *, probe: Probe | None, function: str, threads: bool) -> Any:
    """Run one attempt and pass the points around it.

    Args:
        body: What to run.
        info: What :func:`~durably.core.current_step` shows the body.
        probe: Where the harness looks on, or ``None``.
        function: The id of the durable function, for the points.
        threads: Whether a sync body may leave the event loop's thread.

    Returns:
        The body's value, not yet serialized.

    Raises:
        StepTimeoutError: If it took longer than its timeout. What it returns later is dropped.
        Exception: Whatever the body raised. A ``BaseException`` that is neither a signal nor a request to end
            the process comes out as ``NonRetriableError``: it must not end the worker.
    """
    token = _current.set(info)
    try:
        if probe is not None:
            await pass_point(probe, Point("before_body", function, info.run_id, body.key))
        value = await _contained(body, threads)
        if probe is not None:
            await pass_point(probe, Point("after_effect", function, info.run_id, body.key))
        return value
    finally:
        _current.reset(token)


async def _contained(body: Body, threads: bool) -> Any:
    try:
        return await (_call(body, threads) if body.timeout is None else _timed(body, threads))
    except (Exception, Signal, KeyboardInterrupt, SystemExit):
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise NonRetriableError("the body was cancelled from inside: it awaited something that was cancelled") from None
    except BaseException as error:
        raise NonRetriableError(f"{type(error).__name__}: {error}") from error


async def pass_point(probe: Probe, point: Point) -> None:
    """Report a point and wait where the harness wants to wait."""
    pause = probe(point)
    if pause is not None:
        await pause


async def _call(body: Body, threads: bool) -> Any:
    if body.is_async:
        return await body.fn(*body.args)
    value = await asyncio.to_thread(body.fn, *body.args) if threads else body.fn(*body.args)
    return await value if inspect.isawaitable(value) else value


async def _timed(body: Body, threads: bool) -> Any:
    # A task of its own, which is left behind when it does not end: a body may swallow its cancellation or sit in
    # a thread, and neither may hold up the run.
    task = asyncio.ensure_future(_call(body, True))
    try:
        done, _ = await asyncio.wait({task}, timeout=body.timeout)
    except BaseException:
        task.cancel()
        raise
    if done:
        return task.result()
    task.cancel()
    task.add_done_callback(_drop)
    raise StepTimeoutError(
        step=body.key,
        attempts=1,
        error_type="TimeoutError",
        message=f"the attempt took longer than {body.timeout:g} seconds",
    )


def _drop(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
