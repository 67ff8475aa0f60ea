"""What the server writes: an answer, whole or as a stream, and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from durably.core.messages import (
    AssistantPart,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from durably.core.model import ModelRequest, ModelResponse
from durably.testing.models.wire.strict import (
    Frame,
    pieces,
)

__all__ = ["body", "error_frame", "events", "failure", "too_long"]

_STOPS = {
    "end": "end_turn",
    "tool_calls": "tool_use",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "pause": "pause_turn",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def body(response: ModelResponse, request: ModelRequest, model: str) -> dict[str, Any]:
    """The JSON of a response."""
    message, usage = response.message, response.usage
    refusals = [part.text for part in message.parts if isinstance(part, RefusalPart)]
    made: dict[str, Any] = {
        "id": f"msg_{request.turn}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [_block(part) for part in message.parts if not isinstance(part, RefusalPart)],
        "stop_reason": _STOPS[response.stop_reason],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        },
    }
    if refusals:
        made["stop_details"] = {"type": "refusal", "category": None, "explanation": "\n".join(refusals)}
    return made


def _block(part: AssistantPart) -> dict[str, Any]:
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
    if isinstance(part, ThinkingPart):
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    if isinstance(part, OpaquePart):
        return part.data
    native = part.native if isinstance(part, TextPart) else None
    return {"type": "text", "text": part.text, **(native or {})}


def events(data: dict[str, Any]) -> Iterator[Frame]:
    """The same response as a stream."""
    start = {**data, "content": [], "stop_reason": None, "usage": {**data["usage"], "output_tokens": 1}}
    yield Frame("message_start", {"type": "message_start", "message": start})
    yield Frame("ping", {"type": "ping"})
    for index, block in enumerate(data["content"]):
        empty, deltas = _deltas(block)
        yield _frame("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield _frame("content_block_delta", index=index, delta=delta)
        yield _frame("content_block_stop", index=index)
    delta = {key: data[key] for key in ("stop_reason", "stop_sequence", "stop_details") if key in data}
    counts = {key: data["usage"][key] for key in ("output_tokens", "output_tokens_details")}
    yield _frame("message_delta", delta=delta, usage=counts)
    yield _frame("message_stop")


def _deltas(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kind = block["type"]
    if kind == "text":
        grown = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        cited = [{"type": "citations_delta", "citation": each} for each in block.get("citations", ())]
        return {"type": "text", "text": ""}, [*grown, *cited]
    if kind == "thinking":
        grown = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
        signed = [{"type": "signature_delta", "signature": block["signature"]}]
        return {"type": "thinking", "thinking": "", "signature": ""}, [*grown, *signed]
    if kind == "tool_use":
        text = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
        grown = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(text)]]
        return {**block, "input": {}}, grown
    return block, []


def _frame(kind: str, **data: Any) -> Frame:
    return Frame(kind, {"type": kind, **data})


def failure(status: int, message: str, request_id: str, code: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    kind = code or _ERRORS.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def error_frame(message: str, request_id: str, code: str | None = None) -> Frame:
    """An error inside a stream."""
    return Frame("error", failure(529, message, request_id, code))


def too_long(request_id: str) -> dict[str, Any]:
    """The JSON of the error for a conversation that the model cannot read."""
    return failure(400, "prompt is too long: 210000 tokens > 200000 maximum", request_id)
