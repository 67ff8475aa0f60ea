"""Keeping credentials out of everything that is written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import SecretStr

__all__ = ["Redactor"]

MASK = "[redacted]"


class Redactor(logging.Filter):
    """Replaces registered secrets in text. As a logging filter it does so for log records.

    Args:
        secrets: The secret texts. Shorter ones than four characters are refused: they would mask ordinary text.
    """

    def __init__(self, secrets: Iterable[str | SecretStr] = ()) -> None:
        super().__init__()
        self._forms: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | SecretStr) -> None:
        """Register one more secret.

        Raises:
            ValueError: If it is shorter than four characters.
        """
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        if len(text) < 4:
            raise ValueError("a secret shorter than 4 characters cannot be redacted: it would mask ordinary text")
        forms = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
        self._forms = sorted({*self._forms, *forms}, key=len, reverse=True)

    def add_from(self, resources: Mapping[str, Any]) -> None:
        """Register every ``SecretStr`` among the resources."""
        for value in resources.values():
            if isinstance(value, SecretStr):
                self.add(value)

    def text(self, text: str) -> str:
        """The text without secrets, JSON or plain."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def data(self, data: Any) -> Any:
        """JSON data without secrets."""
        return json.loads(self.text(json.dumps(data))) if self._forms else data

    def filter(self, record: logging.LogRecord) -> bool:
        if self._forms:
            record.msg, record.args = self.text(record.getMessage()), None
            if record.exc_info:
                # Rendered here, and the exception itself let go: a formatter would print it as it is.
                record.exc_text, record.exc_info = self.text(_FORMATTER.formatException(record.exc_info)), None
        return True


_FORMATTER = logging.Formatter()
