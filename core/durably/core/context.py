"""What a durable function is given."""

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
    """One argument holds all a durable function may touch.

    Attributes:
        step: The durable steps.
        event: What started the run.
        input: The event's data, validated to the function's input type.
        run_id: The run.
        attempt: The number of this attempt of the whole function, from 1. Do not decide by it outside a step.
        logger: Silent while steps are replayed, so that a line is logged once.
        resources: What the backend was given by name as ``resources=``; for bodies, never recorded.
    """

    step: StepAPI
    event: Event
    input: In
    run_id: str
    attempt: int
    logger: Logger
    resources: Mapping[str, Any]
