"""The log of what becomes of runs: a line when one starts, waits, fails to be tried again, or ends."""

from __future__ import annotations

import logging
from typing import Any

from durably.core.observer import AttemptFailed, Observer, RunEnded, RunStarted, RunWaiting

__all__ = ["LifecycleLog"]

logger = logging.getLogger("durably.lifecycle")


class LifecycleLog(Observer):
    """Logs under ``durably.lifecycle``. Every backend has one.

    A run that starts or ends is logged at ``INFO``, one that waits at ``DEBUG``, a failure at ``WARNING``. Every record
    has the attributes ``run_id``, ``function``, ``step`` and ``attempt``, like those of ``ctx.logger``.
    """

    def run_started(self, event: RunStarted) -> None:
        logger.info("run %s of %r started", event.run_id, event.function, extra=_fields(event))

    def run_waiting(self, event: RunWaiting) -> None:
        what = " ".join(filter(None, (event.kind, event.name and repr(event.name))))
        logger.debug("run %s waits in step %r: %s", event.run_id, event.step, what, extra=_fields(event))

    def attempt_failed(self, event: AttemptFailed) -> None:
        logger.warning(
            "attempt %d of %s failed, the next one begins in %.3g s: %s",
            event.attempt,
            f"step {event.step!r} of run {event.run_id}" if event.step else f"run {event.run_id}",
            max(0.0, event.retry_at - event.at),
            _said(event.error),
            extra=_fields(event),
        )

    def run_ended(self, event: RunEnded) -> None:
        if event.status == "failed":
            said = _said(event.error or {})
            logger.warning("run %s of %r failed: %s", event.run_id, event.function, said, extra=_fields(event))
        else:
            logger.info("run %s of %r %s", event.run_id, event.function, event.status, extra=_fields(event))


def _fields(event: RunStarted | RunWaiting | AttemptFailed | RunEnded) -> dict[str, Any]:
    return {
        "run_id": event.run_id,
        "function": event.function,
        "step": getattr(event, "step", ""),
        "attempt": getattr(event, "attempt", 1),
    }


def _said(error: dict[str, Any]) -> str:
    return f"{error.get('type', 'Error')}: {error.get('message', '')}".removesuffix(": ")
