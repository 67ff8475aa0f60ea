"""Where an exception came from: its traceback as bounded text, and how that text travels with an error.

Owns: what of a traceback is kept. Frames of durably itself above the user's code are left out, and so is what does not
fit. Does not own: the text of an exception (``error_text.py``), and where the traceback is recorded (``errors.py``).

An error that comes out of a record has no traceback of its own: it carries that of what had failed as a note, which
Python prints below it.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from durably.core.error_text import Redact, TracebackNote, error_message, error_notes, type_name, writable

__all__ = ["TRACEBACK_LIMIT", "carried_traceback", "carry_traceback", "shortened", "traceback_text"]

TRACEBACK_LIMIT = 4_000
"""Bytes that are kept of a traceback: the beginning and the end."""

MESSAGE = 500
"""Characters that a traceback repeats of an exception's text."""

FRAMES = 12
"""Frames of one exception, the innermost."""

CHAIN = 4
"""Exceptions of one chain of causes and contexts, the last ones."""

PARTS, DEPTH = 4, 2
"""Members of an exception group, and levels of groups."""

OWN_MODULES = ("durably.core.", "durably.backends.")

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"


def traceback_text(error: BaseException, redact: Redact = str) -> str:
    """The traceback of an exception that was raised, or the one it carries; empty if it has neither.

    Whatever the exception does, this returns, and any storage takes what it returns.

    Args:
        error: The exception.
        redact: Masks secrets, before anything is left out.
    """
    if not isinstance(_part(error, "__traceback__"), TracebackType):
        return carried_traceback(error)
    text = "\n".join(_chain(error, redact, DEPTH, []))
    return shortened(writable(text, redact, limit=len(text) * 10), TRACEBACK_LIMIT)


def shortened(text: str, limit: int) -> str:
    """A text without its middle, if it has more bytes in UTF-8 than a limit."""
    size = len(text.encode())
    if size <= limit:
        return text
    kept = limit * len(text) // size  # as many characters as fit, if they are as large everywhere
    head = kept // 4
    return f"{text[:head]}\n... ({len(text) - kept:,} characters left out) ...\n{text[head - kept :]}"


def carry_traceback(error: BaseException, text: str) -> None:
    """Give an error the traceback of what had failed, as a note."""
    if text:
        with suppress(Exception):  # a property of a user's subclass
            error.add_note(TracebackNote(text))


def carried_traceback(error: BaseException) -> str:
    """The traceback that an error was given, or an empty text."""
    return next((str(note) for note in error_notes(error) if isinstance(note, TracebackNote)), "")


def _chain(error: BaseException, redact: Redact, depth: int, told: list[BaseException]) -> Iterator[str]:
    """The lines of an exception, after those of the exceptions that led to it; each once: then it is ``told``."""
    last: list[tuple[BaseException, str]] = []
    current: Any = error
    leads_to = ""
    while isinstance(current, BaseException) and len(last) < CHAIN and not _is_among(current, told):
        told.append(current)
        last.append((current, leads_to))
        cause, context = _part(current, "__cause__"), _part(current, "__context__")
        if cause is None and _part(current, "__suppress_context__") is True:
            context = None
        current, leads_to = (context, CONTEXT) if cause is None else (cause, CAUSE)
    for each, words in reversed(last):
        yield from _single(each, redact, depth, told)
        if words:
            yield from ("", words, "")


def _single(error: BaseException, redact: Redact, depth: int, told: list[BaseException]) -> Iterator[str]:
    tb = _part(error, "__traceback__")
    frames = list(_frames(tb)) if isinstance(tb, TracebackType) else []
    if frames:
        yield "Traceback (most recent call last):"
        yield from frames
    yield f"{type_name(error)}: {writable(error_message(error), redact, limit=MESSAGE)}"
    for note in error_notes(error):
        yield writable(note, redact, limit=TRACEBACK_LIMIT if isinstance(note, TracebackNote) else MESSAGE)
    parts = _part(error, "exceptions") if isinstance(error, BaseExceptionGroup) else None
    if not depth or not isinstance(parts, tuple):
        return
    for number, part in enumerate(parts[:PARTS], 1):
        if _is_among(part, told):  # what a branch raised may be what its group led to
            yield f"  | {number} of {len(parts)}: {type_name(part)}, which is told of beside this"
            continue
        yield f"  | {number} of {len(parts)}:"
        for line in "\n".join(_chain(part, redact, depth - 1, told)).split("\n"):
            yield f"  | {line}"


def _is_among(error: BaseException, others: list[BaseException]) -> bool:
    return any(error is each for each in others)  # two that say to be equal are two


def _frames(tb: TracebackType) -> Iterator[str]:
    """The innermost frames, without those of durably above the user's code."""
    kept: deque[tuple[FrameType, int]] = deque(maxlen=FRAMES)
    users, total = False, 0
    for frame, line in traceback.walk_tb(tb):
        module = frame.f_globals.get("__name__")
        users = users or not (isinstance(module, str) and module.startswith(OWN_MODULES))
        if users:
            kept.append((frame, line or 0))
            total += 1
    if total > len(kept):
        yield f"  ... ({total - len(kept)} frames above these)"
    try:
        lines = traceback.StackSummary.extract(iter(kept)).format()
    except Exception:  # it asks the user's loaders for the source
        lines = [f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}' for frame, line in kept]
    yield from (line.rstrip("\n") for line in lines)


def _part(error: BaseException, name: str) -> Any:
    """An attribute of an exception, whose class may have made a property of it that raises."""
    try:
        return getattr(error, name, None)
    except Exception:
        return None
