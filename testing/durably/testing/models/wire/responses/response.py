"""What the server writes: an answer, whole or as a stream, and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from durably.core.messages import (
    AssistantPart,
    OpaquePart,
    RefusalPart,
    ThinkingPart,
    ToolCall,
)
from durably.core.model import ModelRequest, ModelResponse
from durably.testing.models.wire.strict import (
    Frame,
    pieces,
)

__all__ = ["body", "error_frame", "events"]


def body(response: ModelResponse, request: ModelRequest, model: str) -> dict[str, Any]:
    """The JSON of a response."""
    usage = response.usage
    why = {"max_tokens": "max_output_tokens"}.get(response.stop_reason)
    return {
        "id": f"resp_{request.turn}",
        "object": "response",
        "created_at": 0,
        "model": model,
        "status": "incomplete" if why else "completed",
        "incomplete_details": {"reason": why} if why else None,
        "error": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "output": [_item(part, f"{request.turn}_{index}") for index, part in enumerate(response.message.parts)],
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }


def _item(part: AssistantPart, place: str) -> dict[str, Any]:
    if isinstance(part, ToolCall):
        text = part.arguments if isinstance(part.arguments, str) else json.dumps(part.arguments)
        named = {"id": f"fc_{place}", "call_id": part.id, "name": part.name, "arguments": text}
        return {**named, **(part.native or {}), "type": "function_call", "status": "completed"}
    if isinstance(part, OpaquePart):
        return part.data
    if isinstance(part, ThinkingPart):
        summary = [{"type": "summary_text", "text": part.text}]
        return {"id": f"rs_{place}", "type": "reasoning", "summary": summary, "encrypted_content": part.signature}
    if isinstance(part, RefusalPart):
        content: dict[str, Any] = {"type": "refusal", "refusal": part.text}
    else:
        native = dict(part.native or {})
        cited = native.pop("annotations", [])
        content = {"type": "output_text", "text": part.text, "annotations": cited, "logprobs": []}
        if native:
            return {"type": "message", "role": "assistant", "status": "completed", "content": [content], **native}
    message = {"id": f"msg_{place}", "type": "message", "role": "assistant", "status": "completed"}
    return {**message, "content": [content]}


def events(data: dict[str, Any]) -> Iterator[Frame]:
    """The same response as a stream."""
    frames = list(_events(data))
    for number, frame in enumerate(frames):
        yield Frame(frame.event, {**frame.data, "sequence_number": number})


def _events(data: dict[str, Any]) -> Iterator[Frame]:
    begun = {**data, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield _frame("response.created", response=begun)
    yield _frame("response.in_progress", response=begun)
    for index, item in enumerate(data["output"]):
        yield _frame("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        for kind, text in _grown(item):
            place = {"summary_index": 0} if "summary" in kind else {"content_index": 0}
            for piece in pieces(text):
                yield _frame(kind, item_id=item.get("id", ""), output_index=index, delta=piece, **place)
        yield _frame("response.output_item.done", output_index=index, item=item)
    yield _frame(f"response.{data['status']}", response=data)


def _grown(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if item["type"] == "function_call":
        yield "response.function_call_arguments.delta", item["arguments"]
    for part in item.get("summary", ()):
        yield "response.reasoning_summary_text.delta", part["text"]
    for part in item.get("content") or ():
        if part["type"] == "refusal":
            yield "response.refusal.delta", part["refusal"]
        elif part["type"] == "output_text":
            yield "response.output_text.delta", part["text"]


def _frame(kind: str, **data: Any) -> Frame:
    return Frame(kind, {"type": kind, **data})


def error_frame(message: str, request_id: str, code: str | None = None) -> Frame:
    """An error inside a stream."""
    return Frame("error", {"type": "error", "code": code or "server_error", "message": message, "param": None})
