"""What a provider's failure means: whether the engine may retry, when, and a text without the key."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from pydantic import SecretStr

from durably.core import ModelError
from durably.core.errors import ContextWindowExceededError
from durably.core.secrets import Redactor

__all__ = ["Failures", "raise_alone", "retry_delay"]

RETRIABLE = frozenset({408, 409, 425, 429})

# Errors that the same request would meet again, as the providers call them in their ``type`` and ``code`` fields:
# https://docs.anthropic.com/en/api/errors and https://platform.openai.com/docs/guides/error-codes
USED_UP = frozenset({"billing_error", "insufficient_quota"})
"""These come with status 429, like those that pass."""
FINAL_IN_STREAM = USED_UP | {
    "authentication_error",
    "invalid_api_key",
    "invalid_image",
    "invalid_image_format",
    "invalid_prompt",
    "invalid_request_error",
    "model_not_found",
    "not_found_error",
    "permission_error",
    "request_too_large",
}
"""Inside a stream, whose status is 200, there is no other sign."""

# A conversation that the model cannot read, by the code for it. Who has no code says a sentence with status 400; since
# that is never retried, the sentence only chooses between two errors that both are final.
TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"})
TOO_LONG_SENTENCES = (
    re.compile(r"prompt is too long: \d+ tokens > \d+ maximum"),  # Anthropic
    re.compile(r"input length and `?max_tokens`? exceed context limit: \d+ \+ \d+ > \d+"),  # Anthropic
    re.compile(r"maximum context length is \d+ tokens"),  # DeepSeek, OpenRouter, vLLM
    re.compile(r"maximum prompt length is \d+ but the request contains \d+ tokens"),  # xAI
)


class Failures:
    """Makes the errors of one model call.

    Args:
        provider: Such as ``"anthropic"``.
        model: The model that is asked.
        keys: The keys in use, to be masked.

    Attributes:
        headers: Of the answer, with lower-case names, once there is one.
    """

    def __init__(self, provider: str, model: str, *keys: str | SecretStr | None) -> None:
        self.provider = provider
        self.model = model
        self.headers: Mapping[str, str] = {}
        # A shorter one than four characters cannot be masked, and is no key.
        self._redactor = Redactor(key for key in keys if key is not None and len(key) >= 4)

    def answered(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        too_long: bool = False,
    ) -> ModelError:
        """The provider answered, but not with a response.

        Args:
            status: The HTTP status; 200 for an error inside a stream.
            message: What the provider said.
            code: The provider's own name of the error.
            too_long: Whether an SDK has found already that the conversation is longer than the model can read.
        """
        if status == 400 and any(sentence.search(message) for sentence in TOO_LONG_SENTENCES):
            too_long = True
        if too_long or code in TOO_LONG:
            return self._error(message, status, retriable=False, cls=ContextWindowExceededError)
        retriable = status in RETRIABLE or status >= 500 or status < 400
        # The providers' servers overrule their own status with this header; both SDKs obey it.
        told = self.headers.get("x-should-retry")
        if told in ("true", "false"):
            retriable = told == "true"
        final = USED_UP if status >= 400 else FINAL_IN_STREAM
        return self._error(message, status, retriable=retriable and code not in final)

    def unanswered(self, error: BaseException) -> ModelError:
        """No answer, or not all of it: no connection, a timeout, a stream that was cut."""
        cause = error.__cause__ or error
        return self._error(f"{type(cause).__name__}: {cause}", None, retriable=True)

    def cut(self) -> ModelError:
        """A stream that ended before its answer did."""
        return self._error("the stream was cut before the answer was whole", None, retriable=True)

    def unusable(self, message: str) -> ModelError:
        """The call cannot even be made."""
        return self._error(message, None, retriable=False)

    def _error(
        self,
        message: str,
        status: int | None,
        *,
        retriable: bool,
        cls: type[ModelError] = ModelError,
    ) -> ModelError:
        where = f"{self.provider}:{self.model}" + (f" ({status})" if status is not None else "")
        return cls(
            self._redactor.text(f"{where}: {message}"),
            provider=self.provider,
            model=self.model,
            status=status,
            request_id=self.headers.get("request-id") or self.headers.get("x-request-id"),
            retriable=retriable,
            retry_after=retry_delay(self.headers) if retriable else None,
        )


def raise_alone(error: ModelError) -> NoReturn:
    """Raise an error that leads to none of an SDK's: those hold the request, and the words of the answer unmasked."""
    try:
        raise error from None
    finally:
        error.__context__ = None


def retry_delay(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds the provider asked to wait, or ``None``.

    In this order: ``retry-after-ms``, ``retry-after`` (seconds or a date), and the latest reset among the limits
    that are used up (``anthropic-ratelimit-*-reset``, ``x-ratelimit-reset-*``).

    Args:
        headers: With lower-case names.
        now: Seconds since 1970; left out, the clock's.
    """
    now = time.time() if now is None else now
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after")
    if asked is not None:
        delay = _number(asked)
        delay = _until(asked, now, parsedate_to_datetime) if delay is None else delay
        if delay is not None:
            return delay
    resets = [_reset(name, value, headers, now) for name, value in headers.items()]
    return max((each for each in resets if each is not None), default=None)


_ANTHROPIC_RESET = re.compile(r"(anthropic-ratelimit-[a-z-]+)-reset")
_OPENAI_RESET = re.compile(r"x-ratelimit-reset-([a-z-]+)")
_SPAN = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _reset(name: str, value: str, headers: Mapping[str, str], now: float) -> float | None:
    if found := _ANTHROPIC_RESET.fullmatch(name):
        used_up = headers.get(f"{found[1]}-remaining") == "0"
        return _until(value, now, datetime.fromisoformat) if used_up else None
    if found := _OPENAI_RESET.fullmatch(name):
        used_up = headers.get(f"x-ratelimit-remaining-{found[1]}") == "0"
        spans = _SPAN.findall(value)
        return sum(float(number) * _UNITS[unit] for number, unit in spans) if used_up and spans else None
    return None


def _until(text: str, now: float, parse: Any) -> float | None:
    try:
        moment: datetime = parse(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
