"""The context: the one argument of a durable function."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from durably.core.events import Event
from durably.core.steps import StepAPI

__all__ = ["Context", "Logger", "current_run", "running"]

In = TypeVar("In")

Logger = logging.Logger | logging.LoggerAdapter[Any]


@dataclass(frozen=True, kw_only=True)
class Context(Generic[In]):
    """The argument of a durable function: its input, its steps and its resources.

    Attributes:
        step: The durable steps.
        event: The event that started the run.
        input: The event's data, validated to the function's input type.
        run_id: The run.
        attempt: The number of this attempt of the whole function, from 1. It differs between replays: branch on it only
            inside a step.
        logger: A logger that is silent while steps are replayed, so that a line is logged once.
        resources: The backend's ``resources=``, by name, for bodies. Never recorded.
    """

    step: StepAPI
    event: Event
    input: In
    run_id: str
    attempt: int
    logger: Logger
    resources: Mapping[str, Any]

    def patched(self, patch_id: str) -> bool:
        """Return whether this run takes the new code of a patch. See :meth:`~durably.core.StepAPI.patched`."""
        return self.step.patched(patch_id)


_running: ContextVar[Context[Any] | None] = ContextVar("durably_current_run", default=None)


def current_run() -> Context[Any]:
    """The context of the function whose code is running.

    Raises:
        RuntimeError: If none is.
    """
    context = _running.get()
    if context is None:
        raise RuntimeError("a tool with steps=True was called outside a run")
    return context


@contextmanager
def running(context: Context[Any]) -> Iterator[None]:
    """Make a function's context the current one while its code runs."""
    token = _running.set(context)
    try:
        yield
    finally:
        with suppress(ValueError):  # thrown away with its task, by whoever collects it: that context is another
            _running.reset(token)
