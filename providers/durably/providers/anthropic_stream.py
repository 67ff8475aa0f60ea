"""The stream of an Anthropic message: puts its events together.

Written after https://docs.anthropic.com/en/api/messages-streaming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from durably.core.model import Delta
from durably.providers.calls import parse_arguments

__all__ = ["StreamedAnswer"]


class StreamedAnswer:
    """Puts the events of a stream together.

    Attributes:
        data: The response's JSON so far.
        whole: Whether the stream said that it was over.
    """

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.whole = False
        self._json: dict[int, list[str]] = {}

    def take(self, event: Mapping[str, Any]) -> Iterable[Delta]:
        """Add one event, and yield what a listener should see of it."""
        kind = event.get("type")
        if kind == "message_start":
            self.data = {**event["message"], "content": []}
        elif kind == "content_block_start":
            self.data["content"].append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            yield from self._grow(event["index"], event["delta"])
        elif kind == "content_block_stop":
            self._close(event["index"])
        elif kind == "message_delta":
            known = {name: value for name, value in event["delta"].items() if value is not None}
            counts = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
            self.data.update(known, usage={**(self.data.get("usage") or {}), **counts})
        elif kind == "message_stop":
            self.whole = True

    def _grow(self, index: int, delta: Mapping[str, Any]) -> Iterable[Delta]:
        block = self.data["content"][index]
        kind = delta["type"]
        if kind == "text_delta":
            block["text"] = block.get("text", "") + delta["text"]
            yield Delta(kind="text", text=delta["text"], index=index)
        elif kind == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
            yield Delta(kind="thinking", text=delta["thinking"], index=index)
        elif kind == "signature_delta":
            block["signature"] = delta["signature"]
        elif kind == "input_json_delta":
            self._json.setdefault(index, []).append(delta["partial_json"])
            if delta["partial_json"]:
                yield Delta(kind="tool_call", text=delta["partial_json"], index=index)
        elif kind == "compaction_delta":
            block["content"] = (block.get("content") or "") + (delta.get("content") or "")
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]

    def _close(self, index: int) -> None:
        text = "".join(self._json.pop(index, ()))
        if text:  # a call without arguments streams nothing or an empty text
            self.data["content"][index]["input"] = parse_arguments(text)
