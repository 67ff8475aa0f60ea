"""Pruning: old results of tools are left out of what the model sees, before a summary takes the place of everything."""

from __future__ import annotations

from collections.abc import Sequence

from durably.core.messages import ContentPart, Message, ToolResultMessage

__all__ = ["can_be_pruned", "pruned"]

SHORT = 200
"""Results of fewer characters stay: what stands in their place would be as long."""


def can_be_pruned(messages: Sequence[Message]) -> bool:
    """Return whether pruning these messages makes them shorter."""
    return any(_is_long(message) for message in messages)


def pruned(messages: Sequence[Message], keep: int) -> list[Message]:
    """Return the messages without the long results of tools, but for the newest messages.

    Args:
        messages: The messages.
        keep: How many of the newest stay as they are.
    """
    place = max(0, len(messages) - keep)
    return [*(_short(message) if _is_long(message) else message for message in messages[:place]), *messages[place:]]


def _is_long(message: Message) -> bool:
    return isinstance(message, ToolResultMessage) and _size(message.content) >= SHORT


def _short(message: Message) -> Message:
    size = _size(message.content) if isinstance(message, ToolResultMessage) else 0
    return message.model_copy(update={"content": f"(left out to save room: {size:,} characters)"})


def _size(content: str | Sequence[ContentPart]) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part.text) if part.type == "text" else len(part.data or part.url or "") for part in content)
