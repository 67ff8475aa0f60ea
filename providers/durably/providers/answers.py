"""What is true of an answer in every wire format: what it says, and whether it is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durably.core.messages import AssistantPart, RefusalPart, TextPart, ToolCall

__all__ = ["UnanswerableError", "check_stop", "said"]


class UnanswerableError(Exception):
    """An answer that asks for what no step of this library can do. Asking again would not help."""


def check_stop(stop: str, known: Mapping[str, Any], parts: Sequence[AssistantPart]) -> None:
    """Refuse an answer that stopped for a reason nobody here knows, and that says nothing.

    Raises:
        UnanswerableError: If it is one.
    """
    if stop not in known and not any(isinstance(part, TextPart | RefusalPart | ToolCall) for part in parts):
        raise UnanswerableError(f"the model stopped with {stop!r}, which durably does not know, and said nothing")


def said(content: object) -> tuple[str, str]:
    """The text and the thoughts of an answer's content. Mistral gives a list of both."""
    if isinstance(content, str):
        return content, ""
    text = thought = ""
    for part in content if isinstance(content, list) else ():
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            thought += inner if isinstance(inner, str) else said(inner)[0]
        else:
            text += part.get("text") or ""
    return text, thought
