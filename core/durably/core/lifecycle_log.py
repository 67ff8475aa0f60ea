"""The log of what becomes of runs: a line when one starts, waits or ends. Failures are logged in ``failure_log.py``."""

from __future__ import annotations

import logging
from typing import Any

from durably.core.observer import Observer, RunEnded, RunStarted, RunWaiting

__all__ = ["LifecycleLog"]

logger = logging.getLogger("durably.lifecycle")


class LifecycleLog(Observer):
    """Logs the start and end of runs to ``durably.lifecycle``. Every backend has one.

    A run that starts or ends is logged at ``INFO``, one that waits at ``DEBUG``. Every log record has the attributes
    ``run_id``, ``function``, ``step`` and ``attempt``, like those of ``ctx.logger``.
    """

    def run_started(self, event: RunStarted) -> None:
        logger.info("run %s of %r started", event.run_id, event.function, extra=_fields(event))

    def run_waiting(self, event: RunWaiting) -> None:
        what = f"{event.kind} {event.name!r}" if event.name else event.kind
        fields = _fields(event, event.step)
        logger.debug("run %s of %r waits in step %r: %s", event.run_id, event.function, event.step, what, extra=fields)

    def run_ended(self, event: RunEnded) -> None:
        logger.info("run %s of %r %s", event.run_id, event.function, event.status, extra=_fields(event))


def _fields(event: RunStarted | RunWaiting | RunEnded, step: str = "") -> dict[str, Any]:
    return {"run_id": event.run_id, "function": event.function, "step": step, "attempt": 1}
