"""How a failed attempt reaches the log: once, where it failed, with its traceback.

Whatever passes the error on, up to the run that waits for this one, is silent about it: the error carries the traceback
then, and so is known to stand in the log.
"""

from __future__ import annotations

import logging
from typing import Any

from durably.core.error_text import Redact, error_text, type_name
from durably.core.error_trace import carried_traceback, traceback_text

__all__ = ["log_failed_run", "log_failed_step"]

logger = logging.getLogger("durably")


def log_failed_step(
    key: str, function: str, run_id: str, attempt: int, error: BaseException, delay: float | None, redact: Redact
) -> None:
    """Log a failed attempt of a step.

    Args:
        key: The step key.
        function: The id of the function it belongs to.
        run_id: The run.
        attempt: The number of the attempt.
        error: Why it failed.
        delay: Seconds until the next attempt, or ``None`` if this was the last.
        redact: Masks secrets.
    """
    fields = {"run_id": run_id, "function": function, "step": key, "attempt": attempt}
    _log(f"step {key!r} of run {run_id} of {function!r}: attempt {attempt} failed", error, delay, redact, fields)


def log_failed_run(
    function: str, run_id: str, attempt: int, error: BaseException, delay: float | None, redact: Redact
) -> None:
    """Log a failed attempt of a run's code, unless what it failed of stands in the log already."""
    if not _is_logged(error):
        fields = {"run_id": run_id, "function": function, "step": "", "attempt": attempt}
        _log(f"run {run_id} of {function!r} failed in attempt {attempt}", error, delay, redact, fields)


def _log(what: str, error: BaseException, delay: float | None, redact: Redact, fields: dict[str, Any]) -> None:
    level, then = logging.ERROR, "it was the last"
    if delay is not None:
        level, then = logging.WARNING, f"the next begins in {delay:.3g} seconds"
    said = traceback_text(error, redact) or f"{type_name(error)}: {error_text(error, redact)}"
    logger.log(level, "%s, %s:\n%s", what, then, said, extra=fields)


def _is_logged(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        try:
            return all(_is_logged(each) for each in error.exceptions)
        except Exception:  # groups a thousand deep, or a property of a user's subclass
            return False
    return bool(carried_traceback(error))
