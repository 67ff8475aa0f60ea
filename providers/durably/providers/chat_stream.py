"""The stream of a chat completion: puts its chunks together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from durably.core.model import Delta
from durably.providers.answers import said

__all__ = ["StreamedAnswer"]


class StreamedAnswer:
    """Puts the chunks of a stream together.

    Attributes:
        data: The response's JSON so far.
    """

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._choice: dict[str, Any] = {"message": self._message, "finish_reason": None}
        self._places: dict[object, int] = {}
        self._numbered: dict[object, int] = {}
        self._block: object = None
        self.data: dict[str, Any] = {"choices": [self._choice]}

    @property
    def whole(self) -> bool:
        """Whether the stream said why it stopped."""
        return self._choice["finish_reason"] is not None

    def take(self, chunk: Mapping[str, Any]) -> Iterable[Delta]:
        """Add one chunk, and yield what a listener should see of it."""
        for key in ("model", "usage", "error"):
            if chunk.get(key):
                self.data[key] = chunk[key]
        for choice in chunk.get("choices") or ():
            for key in ("finish_reason", "error"):
                if choice.get(key):
                    self._choice[key] = choice[key]
            yield from self._grow(choice.get("delta") or {})

    def _grow(self, delta: Mapping[str, Any]) -> Iterable[Delta]:
        named = next((name for name in ("reasoning_content", "reasoning") if delta.get(name)), None)
        if named:
            reasoning = delta[named]
            self._message[named] = self._message.get(named, "") + reasoning
            yield Delta(kind="thinking", text=reasoning, index=self._place("thinking"))
        for block in delta.get("thinking_blocks") or ():
            self._think(block)
        for piece in delta.get("reasoning_details") or ():
            self._detail(piece)
        text, thought = said(delta.get("content"))
        if thought:
            self._message["reasoning_content"] = self._message.get("reasoning_content", "") + thought
            yield Delta(kind="thinking", text=thought, index=self._place("thinking"))
        for key, piece in (("content", text), ("refusal", delta.get("refusal"))):
            if piece:
                self._message[key] = self._message.get(key, "") + piece
                yield Delta(kind="text", text=piece, index=self._place(key))
        if delta.get("provider_specific_fields"):
            self._message.setdefault("provider_specific_fields", {}).update(delta["provider_specific_fields"])
        if delta.get("annotations"):
            self._message["annotations"] = [*self._message.get("annotations", ()), *delta["annotations"]]
        for piece in delta.get("tool_calls") or ():
            grown = self._call(piece)
            if grown.text:
                yield grown

    def _place(self, what: object) -> int:
        return self._places.setdefault(what, len(self._places))

    def _think(self, block: Mapping[str, Any]) -> None:
        # The pieces of one block come one after another. They carry the block's number only if litellm knows it.
        blocks = self._message.setdefault("thinking_blocks", [])
        last = blocks[-1] if blocks else {}
        before, self._block = self._block, block.get("index")
        goes_on = block.get("type") == last.get("type") == "thinking" and not last.get("signature")
        if not goes_on or self._block != before:
            blocks.append({key: value for key, value in block.items() if key != "index" and value is not None})
        else:
            last["thinking"] = (last.get("thinking") or "") + (block.get("thinking") or "")
            if block.get("signature"):
                last["signature"] = block["signature"]

    def _detail(self, piece: Mapping[str, Any]) -> None:
        """Add a piece of OpenRouter's ``reasoning_details``; those with one number and type are one."""
        details = self._message.setdefault("reasoning_details", [])
        kind = piece.get("index"), piece.get("type")
        grown = next((each for each in details if (each.get("index"), each.get("type")) == kind), None)
        if grown is None:
            details.append(dict(piece))
            return
        for key, value in piece.items():
            if key in ("text", "summary") and value:
                grown[key] = (grown.get(key) or "") + value
            elif value is not None:
                grown[key] = value

    def _call(self, piece: Mapping[str, Any]) -> Delta:
        function = piece.get("function") or {}
        place = self._place_of_call(piece, function)
        call = self._message["tool_calls"][place]
        call.update({key: value for key, value in piece.items() if key not in ("function", "index") and value})
        call["function"]["name"] += function.get("name") or ""
        text = function.get("arguments") or ""
        call["function"]["arguments"] += text
        return Delta(kind="tool_call", text=text, index=self._place(("call", place)))

    def _place_of_call(self, piece: Mapping[str, Any], function: Mapping[str, Any]) -> int:
        """The place of the call that a piece belongs to, which may be a new one.

        A number only tells calls apart: some servers begin with 1, some leave numbers out, some give every call the
        number 0, and some give none. A call begins with its name and its id.
        """
        calls: list[dict[str, Any]] = self._message.setdefault("tool_calls", [])
        number = piece.get("index")
        place = len(calls) - 1 if number is None else self._numbered.get(number, -1)
        begins = piece.get("id") and (number is None or function.get("name"))
        if place < 0 or (begins and calls[place].get("id") not in (None, piece["id"])):
            place = self._numbered[number] = len(calls)
            calls.append({"function": {"name": "", "arguments": ""}})
        return place
