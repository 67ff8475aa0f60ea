"""Breakpoints of the prompt cache in the chat format, as litellm and OpenRouter take them to Claude and Nova.

See https://docs.litellm.ai/docs/completion/prompt_caching. The places are those of ``anthropic_cache.py``.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from durably.providers.anthropic_cache import BREAKPOINTS, MARK

__all__ = ["Breakpoints", "breakpoints_of", "mark_cached", "wants_breakpoints"]

_CLAUDE = re.compile(r".*(claude|anthropic).*")
_ROUTES = frozenset({"azure_ai", "bedrock", "bedrock_converse", "databricks", "openrouter", "vertex_ai"})

Breakpoints = Literal["everywhere", "behind texts"]
"""Where a model takes breakpoints."""


def wants_breakpoints(model: str, route: str) -> bool:
    """Whether a model keeps a conversation in its cache only up to breakpoints.

    Gemini takes them too, but makes each a cache that is paid by the hour.

    Args:
        model: The model, by litellm's name.
        route: The provider, as litellm calls it.
    """
    claude = _CLAUDE.fullmatch(model) is not None
    nova = route.startswith("bedrock") and "nova" in model
    return route == "anthropic" or (route in _ROUTES and (claude or nova))


def breakpoints_of(model: str) -> Breakpoints:
    """Where a model takes breakpoints. Nova refuses them behind tools and behind their results.

    Recorded: https://github.com/danny-avila/LibreChat/issues/13838 and
    https://github.com/aws-samples/bedrock-engineer/pull/71.

    Args:
        model: The model, by litellm's name.
    """
    return "everywhere" if _CLAUDE.fullmatch(model) else "behind texts"


def mark_cached(body: dict[str, Any], where: Breakpoints) -> None:
    """Put breakpoints behind the tools, the system prompt, and the newest two messages of the user's side.

    Args:
        body: The request's JSON. Its lists and messages are replaced, not changed.
        where: Where the model takes them.
    """
    if body.get("tools") and where == "everywhere":
        *others, last = body["tools"]
        body["tools"] = [*others, {**last, "cache_control": MARK}]
    # A text and a list that holds it are not one to every route: what has a breakpoint now must not change without.
    messages = [_in_blocks(message) for message in body["messages"]]
    roles = ("user", "tool") if where == "everywhere" else ("user",)
    places = [place for place, message in enumerate(messages) if message["role"] in roles]
    marked = places[-(BREAKPOINTS - 2) :]
    if messages and messages[0]["role"] == "system":
        marked.append(0)
    for place in marked:
        messages[place] = _marked(messages[place])
    body["messages"] = messages


def _in_blocks(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, str) or message["role"] == "assistant":
        return message
    return {**message, "content": [{"type": "text", "text": content}]}


def _marked(message: dict[str, Any]) -> dict[str, Any]:
    *before, last = message["content"]
    return {**message, "content": [*before, {**last, "cache_control": MARK}]}
