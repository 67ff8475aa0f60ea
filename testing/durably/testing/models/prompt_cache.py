"""The prompt caches of the providers, as they say that theirs work: what of a request is read, and what is written.

Anthropic: https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching. OpenAI:
https://platform.openai.com/docs/guides/prompt-caching. A token is four bytes of JSON here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from durably.core.model import Usage
from durably.core.serialization import digest

__all__ = ["PromptCache"]

LOOKBACK = 20
"""How many blocks before a breakpoint Anthropic looks for an older one."""

STEP = 128
"""OpenAI reads this many tokens or a multiple of it."""

LEAST = 1024
LEAST_OF_CLAUDE = 4096
"""Fewer tokens are not kept. Most models of Anthropic's say 1024; the largest number stands here."""


class PromptCache:
    """What one provider has kept of the requests so far. Nothing is dropped.

    Attributes:
        ideal: For each request, the tokens that a cache which keeps everything would have read, and those it had not
            seen: ``(read, new)``.
    """

    def __init__(self) -> None:
        self.ideal: list[tuple[int, int]] = []
        self._kept: set[str] = set()
        self._sent: list[str] = []

    def usage(self, path: str, body: Mapping[str, Any]) -> Usage:
        """Return what a request reads, all in all, from the cache, and what it writes to it."""
        pieces = list(_pieces(body))
        self._compare([text for text, _ in pieces])
        return self._marked(pieces) if path.endswith("/messages") else self._automatic(pieces, body)

    def _compare(self, texts: list[str]) -> None:
        same = next((n for n, (old, new) in enumerate(zip(self._sent, texts, strict=False)) if old != new), None)
        same = min(len(self._sent), len(texts)) if same is None else same
        self.ideal.append((_tokens(texts[:same]), _tokens(texts[same:])))
        self._sent = texts

    def _marked(self, pieces: list[tuple[str, bool]]) -> Usage:
        """Read up to the last breakpoint that is kept, and keep the prefix of each breakpoint in the request."""
        total = _tokens([text for text, _ in pieces])
        prefixes = _prefixes([text for text, _ in pieces])
        marks = [place for place, (_, marked) in enumerate(pieces) if marked]
        read = 0
        for mark in marks:
            for place in range(mark, max(-1, mark - LOOKBACK), -1):
                key, tokens = prefixes[place]
                if key in self._kept:
                    read = max(read, tokens)
                    break
        written = 0
        for mark in marks:
            key, tokens = prefixes[mark]
            if tokens >= LEAST_OF_CLAUDE:
                self._kept.add(key)
                written = max(written, tokens)
        return Usage(input_tokens=total, cached_tokens=read, cache_write_tokens=max(0, written - read))

    def _automatic(self, pieces: list[tuple[str, bool]], body: Mapping[str, Any]) -> Usage:
        """Read the longest beginning that the machine of this conversation has met."""
        text = "".join(text for text, _ in pieces)
        machine = body.get("prompt_cache_key") or digest(text[:1024])  # the first 256 tokens
        keys = [digest(f"{machine}\0{text[: 4 * tokens]}") for tokens in range(LEAST, len(text) // 4 + 1, STEP)]
        read = max((LEAST + place * STEP for place, key in enumerate(keys) if key in self._kept), default=0)
        self._kept.update(keys)
        return Usage(input_tokens=len(text) // 4, cached_tokens=read)


def _pieces(body: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The parts of a prompt in the order in which the provider reads them, and whether a breakpoint stands behind."""
    for tool in body.get("tools") or ():
        yield _piece("tool", tool)
    for name in ("system", "instructions"):
        for block in _blocks(body.get(name) or ()):
            yield _piece(name, block)
    for message in [*(body.get("messages") or ()), *(body.get("input") or ())]:
        if not isinstance(message.get("content"), str | list):
            yield _piece("item", message)
            continue
        rest = {name: value for name, value in message.items() if name != "content"}
        for block in _blocks(message["content"]):
            yield _piece(json.dumps(rest, sort_keys=True), block)


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _piece(role: str, block: Mapping[str, Any]) -> tuple[str, bool]:
    marked = "cache_control" in json.dumps(block)
    return role + json.dumps(_unmarked(block), sort_keys=True), marked


def _unmarked(value: Any) -> Any:
    """A block without breakpoints, which are no part of the prompt."""
    if isinstance(value, list):
        return [_unmarked(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _unmarked(each) for name, each in value.items() if name != "cache_control"}
    return value


def _prefixes(texts: list[str]) -> list[tuple[str, int]]:
    made: list[tuple[str, int]] = []
    key, tokens = "", 0
    for text in texts:
        key, tokens = digest(key + text), tokens + len(text) // 4
        made.append((key, tokens))
    return made


def _tokens(texts: list[str]) -> int:
    return sum(len(text) // 4 for text in texts)
