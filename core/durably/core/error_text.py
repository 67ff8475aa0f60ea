"""The text of an exception, whatever its class does: the one place where an error of user code is rendered.

``str(error)`` runs user code. It may raise, return a lone surrogate that no storage takes, or nine megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = [
    "MESSAGE_LIMIT",
    "Redact",
    "TracebackNote",
    "error_message",
    "error_notes",
    "error_text",
    "plain_data",
    "shown",
    "type_name",
    "writable",
]

MESSAGE_LIMIT = 8_000
"""Characters that are kept of an error's text."""

NAME_LIMIT = 200
"""Characters that are kept of a class's name."""

SHOWN_LIMIT = 60
"""Characters that an error shows of an argument it refuses."""

DEPTH = 6
"""Levels of lists and dicts that are kept of an error's fields."""

Redact = Callable[[str], str]


class TracebackNote(str):
    """The traceback of what an error stands for, as a note on it. It is no part of what the error says."""

    __slots__ = ()


def error_text(error: BaseException, redact: Redact = str) -> str:
    """What an exception says, with the notes that were added to it.

    Args:
        error: The exception.
        redact: Masks secrets. It sees the text before it is clipped: half a secret is a secret too.

    Returns:
        Text that any storage takes, at most ``MESSAGE_LIMIT`` characters and a word on how many there were.
    """
    notes = [note for note in error_notes(error) if not isinstance(note, TracebackNote)]
    return writable("\n".join([error_message(error), *notes]), redact)


def error_message(error: BaseException) -> str:
    """What an exception says, without notes, of any length."""
    if isinstance(error, BaseExceptionGroup):
        return _string_of(error, lambda: f"{error.message}: {_parts(error)}")
    return _string_of(error)


def error_notes(error: BaseException) -> list[str]:
    """The notes that were added to an exception."""
    try:
        notes = getattr(error, "__notes__", ())
        return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    except Exception:  # a property of the user's
        return []


def type_name(error: BaseException) -> str:
    """The name of an exception's class."""
    return writable(type(error).__name__, limit=NAME_LIMIT)


def writable(text: str, redact: Redact = str, limit: int = MESSAGE_LIMIT) -> str:
    """A text that any storage takes: lone surrogates escaped, and clipped."""
    text = redact(text.encode("utf-8", "backslashreplace").decode())
    if len(text) <= limit:
        return text
    left_out = f" ... ({len(text):,} characters in all)"
    # The note counts too: a text that was clipped once is not clipped again.
    return text[: max(0, limit - len(left_out))] + left_out


def shown(value: object) -> str:
    """An argument as an error shows it, whatever its ``repr`` does."""
    return writable(_string_of(value, lambda: repr(value)), limit=SHOWN_LIMIT)


def plain_data(value: Any, redact: Redact = str, depth: int = DEPTH) -> Any:
    """A field of an error as JSON data: what has no JSON form is kept as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, str):
        return writable(value, redact)
    if depth and isinstance(value, list | tuple):
        return [plain_data(each, redact, depth - 1) for each in value]
    if depth and isinstance(value, dict):
        return {writable(str(key), redact): plain_data(each, redact, depth - 1) for key, each in value.items()}
    return writable(_string_of(value), redact)


def _parts(group: BaseExceptionGroup[BaseException]) -> str:
    return "; ".join(f"{type_name(each)}: {_string_of(each)}" for each in group.exceptions)


def _string_of(value: object, render: Callable[[], str] | None = None) -> str:
    try:
        return str(value) if render is None else render()
    except BaseException as error:  # user code, which may raise anything
        return f"<a {type(value).__name__} whose text cannot be had: {type(error).__name__}>"
