"""Redaction: masks credentials in everything that is written.

Owns: what is masked in a text. Does not own: which texts are written; each writer calls it (the backends, the loggers).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

__all__ = ["MASK", "Redactor"]

MASK = "[redacted]"
"""What stands in the place of every secret."""


class Redactor(logging.Filter):
    """Masks registered secrets in text. It is also a logging filter, which masks them in log records.

    Args:
        secrets: The secrets, at least four characters each. Shorter ones would mask ordinary text.

    Raises:
        ValueError: If a secret is shorter.
    """

    def __init__(self, secrets: Iterable[str | SecretStr] = ()) -> None:
        super().__init__()
        self._forms: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | SecretStr) -> None:
        """Register one more secret.

        Raises:
            TypeError: If it is no text.
            ValueError: If it is shorter than four characters.
        """
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        if not isinstance(text, str):
            raise TypeError(f"a secret is a text or a SecretStr, not a {type(text).__name__}")
        if len(text) < 4:
            raise ValueError("a secret shorter than 4 characters cannot be redacted: it would mask ordinary text")
        # The longest form goes first: masking a part of it first would leave the rest readable.
        self._forms = sorted({*self._forms, *_written(text)}, key=len, reverse=True)

    def add_from(self, resources: Mapping[str, object]) -> None:
        """Register every ``SecretStr`` among the resources."""
        for value in resources.values():
            if isinstance(value, SecretStr):
                self.add(value)

    def text(self, text: str) -> str:
        """Return a text, JSON or plain, with its secrets masked."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the secrets of a log record, which is logged in any case."""
        if self._forms:
            record.msg, record.args = self.text(record.getMessage()), None
            if record.exc_info:
                # A formatter would print the exception as it is, so it is rendered and masked here, and then dropped.
                record.exc_text, record.exc_info = self.text(_FORMATTER.formatException(record.exc_info)), None
        return True


def _written(text: str) -> set[str]:
    """The forms in which a text is written: as it is, by ``repr``, in a URL, and each of them in JSON, also in a text
    that is itself JSON.
    """
    in_url = (encode(text, safe="", errors="replace") for encode in (quote, quote_plus))
    forms = {text, repr(text)[1:-1], ascii(text)[1:-1], *in_url}
    for _ in range(2):
        forms |= {json.dumps(form, ensure_ascii=plain)[1:-1] for form in forms for plain in (True, False)}
    return forms


_FORMATTER = logging.Formatter()
