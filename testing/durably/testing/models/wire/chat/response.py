"""What the server writes: an answer, whole or as a stream, and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from durably.core.messages import (
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
    "end": "stop",
    "tool_calls": "tool_calls",
    "max_tokens": "length",
    "refusal": "stop",
    "pause": "stop",
}
_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def body(response: ModelResponse, request: ModelRequest, model: str) -> dict[str, Any]:
    """The JSON of a response."""
    parts, usage = response.message.parts, response.usage
    message: dict[str, Any] = {"role": "assistant", "content": response.message.text or None, "refusal": None}
    thoughts = [part.text for part in parts if isinstance(part, ThinkingPart)]
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)  # OpenAI has none; its lookalikes do
    cited = [
        each for part in parts if isinstance(part, TextPart) for each in (part.native or {}).get("annotations", ())
    ]
    if cited:
        message["annotations"] = cited
    refusals = [part.text for part in parts if isinstance(part, RefusalPart)]
    if refusals:
        message["refusal"] = "\n".join(refusals)
    if response.message.tool_calls:
        message["tool_calls"] = [_written(call) for call in response.message.tool_calls]
    return {
        "id": f"chatcmpl-{request.turn}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": _STOPS[response.stop_reason], "logprobs": None}],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        },
    }


def _written(call: ToolCall) -> dict[str, Any]:
    text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": text}}


def events(data: dict[str, Any]) -> Iterator[Frame]:
    """The same response as a stream."""
    choice = data["choices"][0]
    message = choice["message"]
    base = {**{key: data[key] for key in ("id", "created", "model")}, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> Frame:
        return Frame("", {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for key in ("reasoning_content", "content", "refusal"):
        for piece in pieces(message.get(key) or ""):
            yield chunk({key: piece})
    if message.get("annotations"):
        yield chunk({"annotations": message["annotations"]})
    for index, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        yield chunk({"tool_calls": [{**call, "index": index, "function": {"name": function["name"], "arguments": ""}}]})
        for piece in pieces(function["arguments"]):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, choice["finish_reason"])
    yield Frame("", {**base, "choices": [], "usage": data["usage"]})
    yield Frame("", "[DONE]")


def failure(status: int, message: str, request_id: str, code: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    kind, usual = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code or usual}}


def error_frame(message: str, request_id: str, code: str | None = None) -> Frame:
    """An error inside a stream."""
    return Frame("", failure(500, message, request_id, code))


def too_long(request_id: str) -> dict[str, Any]:
    """The JSON of the error for a conversation that the model cannot read."""
    message = "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens."
    return failure(400, message, request_id, "context_length_exceeded")
