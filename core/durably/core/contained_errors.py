"""What user code may raise that must not reach the engine's own tasks, and what to make of it.

Does not own: whether another attempt follows (``attempts.py``, ``function_attempts.py``).
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from durably.core.error_text import error_text, type_name
from durably.core.errors import InterruptSignal, NonRetriableError

__all__ = ["as_exception", "drop_outcome", "interrupt_process", "is_current", "own_task_is_cancelled", "uncancel"]


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


def drop_outcome(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended whose outcome nobody wants any more; else asyncio complains of its error."""
    if not task.cancelled():
        task.exception()


def own_task_is_cancelled() -> bool:
    """Whether it is this task that is being cancelled, not something that the user's code awaited."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def uncancel() -> None:
    """Take back that the user's code cancelled this task: it is the engine's, and goes on."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def is_current(task: asyncio.Task[Any] | None) -> bool:
    """Whether this is the task that runs now."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no event loop runs
        return False
