"""The context: the one argument of a durable function."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from durably.core.events import Event
from durably.core.steps import StepAPI

__all__ = ["Context", "Logger"]

In = TypeVar("In")

Logger = logging.Logger | logging.LoggerAdapter[Any]


@dataclass(frozen=True, kw_only=True)
class Context(Generic[In]):
    """The argument of a durable function. It holds everything that the function may touch.

    Attributes:
        step: The durable steps.
        event: The event that started the run.
        input: The event's data, validated to the function's input type.
        run_id: The run.
        attempt: The number of this attempt of the whole function, from 1. It differs from replay to replay: do not
            decide by it outside a step.
        logger: A logger that is silent while steps are replayed, so that a line is logged once.
        resources: What the backend was given as ``resources=``, by name. It is for bodies, and is never recorded.
    """

    step: StepAPI
    event: Event
    input: In
    run_id: str
    attempt: int
    logger: Logger
    resources: Mapping[str, Any]

    def patched(self, patch_id: str) -> bool:
        """Whether this run goes by the changed code of a patch. See :meth:`~durably.core.StepAPI.patched`."""
        return self.step.patched(patch_id)
