"""Failures of providers: whether and when the engine may retry, and a text without the key.

Owns: what statuses, codes and headers mean. Does not own: the SDKs' exceptions, which each provider reads by itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from pydantic import SecretStr

from durably.core import ModelError
from durably.core.error_text import type_name
from durably.core.errors import AnswerFailedError, ContextWindowExceededError
from durably.core.model import Delta
from durably.core.secrets import Redactor

__all__ = ["Failures", "raise_alone", "retry_delay"]

MAX_RETRY_AFTER = 3600.0
"""The longest wait, in seconds, that a provider's header is believed. A limit by the day would hold a run for a day."""

RETRIABLE = frozenset({408, 409, 425, 429})

# Codes of errors that the same request would get again, from the providers' ``type`` and ``code`` fields:
# https://docs.anthropic.com/en/api/errors and https://platform.openai.com/docs/guides/error-codes
USED_UP = frozenset({"billing_error", "insufficient_quota"})
"""Final, although they come with status 429 as a passing rate limit does."""
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
"""Final inside a stream. The status there is 200, so the code is the only sign."""

BADLY_SAMPLED = frozenset({"tool_use_failed"})
"""Groq's status 400 for a call that the model wrote badly: another answer may be better."""

# A conversation that is too long has a code, or else a sentence in an answer with status 400. That status is never
# retried, so the sentence only chooses between two final errors: no retry depends on it.
TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"})
TOO_LONG_SENTENCES = (
    re.compile(r"prompt is too long: \d+ tokens > \d+ maximum"),  # Anthropic
    re.compile(r"input length and `?max_tokens`? exceed context limit: \d+ \+ \d+ > \d+"),  # Anthropic
    re.compile(r"maximum context length is \d+ tokens"),  # DeepSeek, OpenRouter, vLLM
    re.compile(r"maximum prompt length is \d+ but the request contains \d+ tokens"),  # xAI
)


MISREAD = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading something raises that has another form than it should."""


class Failures:
    """Makes the errors of one model call.

    Args:
        provider: The provider, such as ``"anthropic"``.
        model: The model that is asked.
        keys: The keys in use, which are masked in every text.

    Attributes:
        headers: The headers of the answer, with lower-case names. Empty until there is an answer.
    """

    def __init__(self, provider: str, model: str, *keys: str | SecretStr | None) -> None:
        self.provider = provider
        self.model = model
        self.headers: Mapping[str, str] = {}
        # The redactor refuses secrets of less than four characters. Such a text is no real key.
        self._redactor = Redactor(key for key in keys if key is not None and len(key) >= 4)

    def answered(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        too_long: bool = False,
    ) -> ModelError:
        """Return the error for an answer that is an error.

        Args:
            status: The HTTP status. It is 200 for an error inside a stream.
            message: The provider's message.
            code: The provider's code of the error.
            too_long: Whether the SDK knows that the conversation is longer than the model can read.
        """
        if status == 400 and any(sentence.search(message) for sentence in TOO_LONG_SENTENCES):
            too_long = True
        if too_long or code in TOO_LONG:
            return self._error(message, status, retriable=False, cls=ContextWindowExceededError)
        retriable = status in RETRIABLE or status >= 500 or status < 400
        # The providers' servers overrule their status with this header, and both SDKs obey it.
        told = self.headers.get("x-should-retry")
        if told in ("true", "false"):
            retriable = told == "true"
        if code in BADLY_SAMPLED:
            retriable = True
        final = USED_UP if status >= 400 else FINAL_IN_STREAM
        return self._error(message, status, retriable=retriable and code not in final)

    def in_body(self, error: Mapping[str, Any]) -> ModelError:
        """Return the error for one in an answer with status 200. Its code may be the status that it stands for."""
        code = error.get("code")
        status = int(str(code)) if re.fullmatch("[45][0-9]{2}", str(code)) else 200
        named = next((each for each in (code, error.get("type")) if isinstance(each, str) and not each.isdigit()), None)
        return self.answered(status, str(error.get("message") or "failed"), code=named)

    def unanswered(self, error: BaseException) -> ModelError:
        """Return the error for a missing or partial answer: no connection, a timeout, a stream that was cut."""
        cause = error.__cause__ or error
        return self._error(f"{type(cause).__name__}: {cause}", None, retriable=True)

    def cut(self) -> ModelError:
        """Return the error for a stream that ended before its answer did."""
        return self._error("the stream was cut before the answer was whole", None, retriable=True)

    def late(self, error: ModelError) -> ModelError:
        """Return the error for an answer that was to come later: one that may succeed is submitted again for that."""
        if not error.retriable:
            return error
        return AnswerFailedError(
            error.message,
            provider=error.provider,
            model=error.model,
            status=error.status,
            request_id=error.request_id,
        )

    def unusable(self, message: str) -> ModelError:
        """Return the error for a call that cannot be made."""
        return self._error(message, None, retriable=False)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A block that reads an answer: one that has another form than its API documents is an error of the server.

        Raises:
            ModelError: If what is read has no such field, or another type.
        """
        try:
            yield
        except MISREAD as error:
            what = f"the answer has not the form that the API documents: {type_name(error)}: {error}"
            raise_alone(self._error(what, None, retriable=True))

    def read_piece(self, take: Callable[[dict[str, Any]], Iterable[Delta]], piece: Any, **form: bool) -> list[Delta]:
        """Read one piece of a stream, and return what a listener should see of it.

        Args:
            take: Adds its JSON to the answer.
            piece: The SDK's model of it.
            form: Which of its fields count, as ``model_dump`` takes it.

        Raises:
            ModelError: As :meth:`reading`.
        """
        with self.reading():
            return list(take(piece.model_dump(mode="json", warnings=False, **form)))

    def _error(
        self,
        message: str,
        status: int | None,
        *,
        retriable: bool,
        cls: type[ModelError] = ModelError,
    ) -> ModelError:
        delay = retry_delay(self.headers)
        delay = None if delay is None else min(delay, MAX_RETRY_AFTER)
        where = f"{self.provider}:{self.model}" + (f" ({status})" if status is not None else "")
        return cls(
            self._redactor.text(f"{where}: {message}"),
            provider=self.provider,
            model=self.model,
            status=status,
            request_id=self.headers.get("request-id") or self.headers.get("x-request-id"),
            retriable=retriable,
            retry_after=delay if retriable else None,
        )


def raise_alone(error: ModelError) -> NoReturn:
    """Raise an error without its context. The SDK's errors hold the request, with the key, and unmasked text."""
    try:
        raise error from None
    finally:
        error.__context__ = None


def retry_delay(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that the provider asked to wait, or ``None``.

    The first of these headers counts: ``retry-after-ms``; ``retry-after`` (seconds or a date); the latest reset among
    the limits that are used up (``anthropic-ratelimit-*-reset``, ``x-ratelimit-reset-*``).

    Args:
        headers: The headers, with lower-case names.
        now: The time in seconds since 1970. Default: the clock's.
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


def _until(text: str, now: float, parse: Callable[[str], datetime]) -> float | None:
    try:
        moment = parse(text)
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
