"""Blocks of an Anthropic conversation that need each other.

Owns: what is taken out where one of them is missing. Does not own: calls of the agent's tools (``transcript.py``).

A run may end, or be cut off, between the use of one of the provider's own tools and its result; and the answers of
another provider hold no thoughts of Claude's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["paired", "thinks_on"]

_USES = ("server_tool_use", "mcp_tool_use")
_THOUGHTS = ("thinking", "redacted_thinking")


def paired(messages: Sequence[Mapping[str, Any]], empty: str) -> list[dict[str, Any]]:
    """Return the messages without uses of the provider's own tools that have no result, and results without a use.

    A use may stand open where the answer goes on: at the end, or before results that code of the model waits for.

    Args:
        messages: The messages in the provider's form.
        empty: The text that stands in for an answer of which nothing is left.
    """
    used = {block["id"] for block in _blocks(messages) if block["type"] in _USES}
    done = {block["tool_use_id"] for block in _blocks(messages) if _is_result(block)}
    going_on = _last_question(messages)

    def stays(place: int, block: Mapping[str, Any]) -> bool:
        if block["type"] in _USES:
            return block["id"] in done or place > going_on
        return not _is_result(block) or block["tool_use_id"] in used

    made = []
    for place, message in enumerate(messages):
        content = message["content"]
        if message["role"] == "assistant":
            left = [block for block in content if stays(place, block)]
            content = left or [{"type": "text", "text": empty}]
        made.append({**message, "content": content})
    return made


def thinks_on(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the model may think in this turn: the provider refuses it in one that began without a thought."""
    turn = messages[_last_question(messages) + 1 :]
    asked = [each for each in turn if any(block["type"] == "tool_use" for block in _blocks([each]))]
    return not asked or asked[-1]["content"][0]["type"] in _THOUGHTS


def _last_question(messages: Sequence[Mapping[str, Any]]) -> int:
    """The place of the last message of the user's that holds no results."""
    places = [
        place
        for place, message in enumerate(messages)
        if message["role"] == "user" and not any(block["type"] == "tool_result" for block in _blocks([message]))
    ]
    return max(places, default=-1)


def _blocks(messages: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        if not isinstance(message["content"], str):
            yield from message["content"]


def _is_result(block: Mapping[str, Any]) -> bool:
    return str(block["type"]).endswith("_tool_result")
