"""Breakpoints of Anthropic's prompt cache: up to where a request is kept for the next one.

Each turn sends the conversation again. What the provider finds in its cache costs a tenth. It looks only where a
breakpoint stands, and a little before it, and takes four of them:
https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["MARK", "mark_cached"]

MARK = {"type": "ephemeral"}

BREAKPOINTS = 4


def mark_cached(body: dict[str, Any]) -> None:
    """Put breakpoints behind the tools, the system prompt, and the newest two messages of the user's side.

    The last one is where the next turn goes on. The one before it is found by this turn, however much the model has
    said in between. A body that has breakpoints of the caller's own is left as it is.

    Args:
        body: The request's JSON. Its lists and blocks are replaced, not changed.
    """
    if "cache_control" in body or any("cache_control" in block for block in _blocks(body)):
        return
    if body.get("tools"):
        # A tool that is not in the prompt has no place in the cache.
        shown = [place for place, tool in enumerate(body["tools"]) if not tool.get("defer_loading")]
        body["tools"] = [
            {**tool, "cache_control": MARK} if [place] == shown[-1:] else tool
            for place, tool in enumerate(body["tools"])
        ]
    if body.get("system"):
        body["system"] = _marked(body["system"])
    places = [place for place, message in enumerate(body["messages"]) if message["role"] == "user"]
    messages = list(body["messages"])
    for place in places[-(BREAKPOINTS - 2) :]:
        messages[place] = {**messages[place], "content": _marked(messages[place]["content"])}
    body["messages"] = messages


def _marked(content: Any) -> Any:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not blocks or (blocks[-1].get("type") == "text" and not blocks[-1].get("text", "").strip()):
        return content  # the provider refuses a breakpoint on an empty text
    return [*blocks[:-1], {**blocks[-1], "cache_control": MARK}]


def _blocks(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from body.get("tools") or ()
    for content in (body.get("system"), *(message["content"] for message in body["messages"])):
        if isinstance(content, list):
            yield from (block for block in content if isinstance(block, dict))
