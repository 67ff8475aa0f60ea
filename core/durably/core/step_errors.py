"""The last word on a step that failed: which error its caller gets, the same on every engine."""

from __future__ import annotations

from collections.abc import Callable

from durably.core.error_text import error_text
from durably.core.error_trace import carry_traceback
from durably.core.errors import (
    SerializationError,
    StepCrashedError,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
    error_to_json,
)

__all__ = ["crashed", "final_error", "interrupted", "invoke_timeout"]


def interrupted(key: str) -> StepInterruptedError:
    """The error of an at-most-once step that a crash cut off."""
    return StepInterruptedError(
        step=key,
        attempts=1,
        error_type="StepInterruptedError",
        message="a crash cut it off after it had started; it may have had its effect, and it may run only once",
    )


def crashed(key: str, failures: int, crashes: int, since: float) -> StepCrashedError:
    """The error of a step that more crashes cut off than its limit allows.

    Args:
        key: The step key.
        failures: How many attempts failed otherwise.
        crashes: How many crashes fell into its window.
        since: When the first of them was noticed, in seconds since 1970.
    """
    return StepCrashedError(step=key, attempts=failures + crashes, crashes=crashes, since=round(since, 3))


def invoke_timeout(key: str, function: str, timeout: float | None) -> StepTimeoutError:
    """The error of a call that took longer than its timeout, in seconds."""
    return StepTimeoutError(
        step=key, attempts=1, error_type="TimeoutError", message=f"function {function!r} took longer than {timeout:g} s"
    )


def final_error(key: str, failures: int, error: Exception, redact: Callable[[str], str] = str) -> Exception:
    """What a caller gets when a step has failed for good.

    Args:
        key: The step key.
        failures: How many attempts failed, the last one included.
        error: The last attempt's error.
        redact: Masks secrets in its text.
    """
    if isinstance(error, SerializationError):
        return error
    data = error_to_json(error, redact)
    final: StepError
    if type(error) is StepTimeoutError and error.step == key:
        final = StepTimeoutError(step=key, attempts=failures, error_type="TimeoutError", message=error.message)
    else:
        message = data.get("message") or error_text(error, redact)
        final = StepError(step=key, attempts=failures, error_type=data["type"], message=message)
    carry_traceback(final, data.get("traceback", ""))
    return final
