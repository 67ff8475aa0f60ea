"""What a cancelled run asked for, so that nobody works for it any more. See ``StepAPI.if_cancelled``."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from durably.core.attempts import StepCall, run_step
from durably.core.environment import Environment
from durably.core.error_text import error_text

__all__ = ["call_off"]

ATTEMPTS = 3
"""How often a body is tried."""

logger = logging.getLogger("durably")


async def call_off(calls: Iterable[StepCall], environment: Environment, *, function: str, run_id: str) -> None:
    """Run the bodies. What fails each time is logged.

    Args:
        calls: The bodies.
        environment: The worker's.
        function: The id of the durable function.
        run_id: The run.
    """
    for call in calls:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await run_step(call, environment, function=function, run_id=run_id, attempt=attempt, kind=None)
                break
            except Exception as error:
                if attempt == ATTEMPTS:
                    what, why = call.fn.__qualname__, error_text(error, environment.redactor.text)
                    logger.warning("run %s was cancelled, and %s failed: %s", run_id, what, why)
