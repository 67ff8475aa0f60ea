"""The OpenAI Responses format, as plain JSON.

Owns: requests, answers, and the events of a stream. Does not own: sending (``openai.py``).

Written after https://platform.openai.com/docs/api-reference/responses. The provider stores nothing: each request holds
the whole conversation, and reasoning comes back encrypted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from durably.core.messages import (
    AssistantMessage,
    AssistantPart,
    ContentPart,
    FilePart,
    Message,
    OpaquePart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import Delta, ModelRequest, ModelResponse, StopReason, ToolSpec, Usage
from durably.core.server_tool_approval import APPROVED, approval_name
from durably.core.server_tools import RemoteMCP
from durably.providers.answers import UnanswerableError
from durably.providers.calls import call_arguments, merged_tools, name_calls
from durably.providers.chat import image_or_pdf
from durably.providers.dialect import Dialect
from durably.providers.documents import OFFICE
from durably.providers.later import in_background, pending
from durably.providers.schemas import described, schema_prompt, strict_parameters, strict_schema
from durably.providers.server_tools import openai_tools
from durably.providers.transcript import repaired

__all__ = ["DIALECT", "answer", "delta", "included", "request_body"]

_DELTAS: dict[str, Literal["text", "thinking", "tool_call"]] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_summary_text.delta": "thinking",
    "response.reasoning_text.delta": "thinking",
    "response.function_call_arguments.delta": "tool_call",
}


_OWN_TOOL = "give the agent a tool of your own that does it, which then is a durable step"

APPROVAL = "mcp_approval_request"

PENDING = ("queued", "in_progress")
"""The states of an answer that is still being made."""

UNANSWERABLE: Mapping[str, str] = {
    APPROVAL: "name the server in tools=, RemoteMCP(..., requires_approval=True), or set require_approval='never'",
    "custom_tool_call": "give the agent a tool with a text parameter instead of a custom tool",
    "shell_call": _OWN_TOOL,
    "local_shell_call": _OWN_TOOL,
    "apply_patch_call": _OWN_TOOL,
    "computer_call": _OWN_TOOL,
}
"""Items that the model waits for an answer to, and what to do instead."""


def _file(part: FilePart) -> ContentPart:
    if part.media_type == "application/pdf" and part.url and not part.data:
        return FilePart(media_type=part.media_type, url=part.url)
    if part.media_type in OFFICE and (part.data or part.url):
        if part.url and not part.data:
            return FilePart(media_type=part.media_type, url=part.url)
        name = part.name or f"file.{OFFICE[part.media_type]}"  # by its ending the provider knows what it is
        return FilePart(media_type=part.media_type, data=part.data, name=name)
    return image_or_pdf(part)


DIALECT = Dialect(origin="openai", file=_file, takes_thinking=lambda part: False, joins_answers=True)


def request_body(request: ModelRequest, *, model: str, reasons: bool) -> dict[str, Any]:
    """Return the body of a request. The request's options overwrite it, but add to its tools.

    Args:
        request: The request.
        model: The model.
        reasons: Whether it is a reasoning model. Its reasoning then comes back encrypted.
    """
    options = dict(request.options)
    # What is made in the background is stored until it is fetched.
    body: dict[str, Any] = {"model": model, "store": bool(options.get("background"))}
    if reasons:
        body["include"] = included(reasons)
    system = request.system
    if request.output_schema is not None:
        schema = strict_schema(request.output_schema)
        if schema is None:
            system = schema_prompt(system, request.output_schema)
        else:
            wanted = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}
            body["text"] = {"format": wanted, **options.pop("text", {})}
    if system:
        body["instructions"] = system
    said = repaired(request.messages, DIALECT)
    calls = [call for message in said if isinstance(message, AssistantMessage) for call in message.tool_calls]
    asked = {call.id: call.native[APPROVAL]["id"] for call in calls if call.native and APPROVAL in call.native}
    body["input"] = [item for message in said for item in _items(message, asked)]
    if wanted_too := options.pop("include", ()):
        body["include"] = [*dict.fromkeys([*body.get("include", ()), *wanted_too])]
    choice = options.pop("tool_choice", None)
    own = [_tool(spec) for spec in request.tools]
    tools = merged_tools([*own, *openai_tools(request.server_tools)], options)
    if tools:
        body["tools"] = tools
        if choice is not None:
            named = isinstance(choice, str) and choice not in ("auto", "none", "required")
            body["tool_choice"] = {"type": "function", "name": choice} if named else choice
    body |= options
    if request.reminder:
        body["input"] = [*body["input"], {"type": "message", "role": "user", "content": request.reminder}]
    if not body["store"]:
        body["input"] = [item for item in body["input"] if not _is_stored_thought(item)]
    return body


def included(reasons: bool) -> list[str]:
    """What an answer is to hold besides: of a reasoning model its reasoning, encrypted."""
    return ["reasoning.encrypted_content"] if reasons else []


def _is_stored_thought(item: Mapping[str, Any]) -> bool:
    """Whether an item is a thought by its id alone, which only a provider that has stored it can look up."""
    return item["type"] == "reasoning" and not item.get("encrypted_content")


def _tool(spec: ToolSpec) -> dict[str, Any]:
    schema = strict_parameters(spec) if spec.strict else dict(spec.parameters)
    named = {"type": "function", "name": spec.name, "description": described(spec)}
    deferred = {"defer_loading": True} if spec.deferred else {}
    return {**named, "parameters": schema, "strict": spec.strict, **deferred, **spec.native.get(DIALECT.origin, {})}


def _items(message: Message, asked: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the items of a message.

    Args:
        message: The message.
        asked: The ids of the requests for approval among the calls, by the ids of the calls.
    """
    if isinstance(message, UserMessage):
        yield {"type": "message", "role": "user", "content": _content(message.content)}
    elif isinstance(message, ToolResultMessage) and message.call_id in asked:
        approved = message.content == APPROVED
        reason = {} if approved or not isinstance(message.content, str) else {"reason": message.content}
        request_id = asked[message.call_id]
        yield {"type": "mcp_approval_response", "approval_request_id": request_id, "approve": approved, **reason}
    elif isinstance(message, ToolResultMessage):
        yield {"type": "function_call_output", "call_id": message.call_id, "output": _content(message.content)}
    else:
        yield from _output(message.parts)


def _output(parts: Sequence[AssistantPart]) -> Iterator[dict[str, Any]]:
    item: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, TextPart):
            native = dict(part.native or {})
            content = {"type": "output_text", "text": part.text, "annotations": native.pop("annotations", [])}
            if item and native.get("id") and item.get("id") == native["id"]:
                item["content"].append(content)
                continue
            if item:
                yield item
            known = {"status": "completed", **native} if "id" in native else native
            item = {"type": "message", "role": "assistant", "content": [content], **known}
            continue
        if item:
            yield item
        item = {}
        yield _item(part)
    if item:
        yield item


def _item(part: AssistantPart) -> dict[str, Any]:
    if isinstance(part, ToolCall) and part.native and APPROVAL in part.native:
        request: dict[str, Any] = part.native[APPROVAL]
        return request
    if isinstance(part, ToolCall):
        text = part.arguments if isinstance(part.arguments, str) else json.dumps(part.arguments)
        return {
            **(part.native or {}),
            "type": "function_call",
            "call_id": part.id,
            "name": part.name,
            "arguments": text,
        }
    if isinstance(part, OpaquePart):
        return part.data
    refusal = part.text if isinstance(part, RefusalPart) else ""
    return {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": refusal}]}


def _content(content: str | Sequence[ContentPart]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_content_part(part) for part in content]


def _content_part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    address = f"data:{part.media_type};base64,{part.data}"
    if part.media_type.startswith("image/"):
        return {"type": "input_image", "image_url": part.url or address}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.name, "file_data": address}


def answer(data: Mapping[str, Any], request: ModelRequest) -> ModelResponse:
    """Return the response that the provider's JSON means, without cost and request id.

    Args:
        data: The JSON of a response.
        request: The request.

    Raises:
        ValueError: If it holds no answer.
        UnanswerableError: If it asks for what only another program could do, or was cancelled.
    """
    if data.get("status") in PENDING:
        return pending(in_background(str(data.get("id"))), origin=DIALECT.origin)
    if data.get("status") == "cancelled":
        raise UnanswerableError("the answer was cancelled at the provider before it was made")
    if data.get("status") not in ("completed", "incomplete"):
        raise ValueError(f"the response has status {data.get('status')!r}")
    servers = [tool for tool in request.server_tools if isinstance(tool, RemoteMCP)]
    approvable = [each.name for each in servers if each.requires_approval]
    parts = [part for item in data.get("output") or () for part in _parts(item, approvable)]
    return ModelResponse(
        message=AssistantMessage(parts=name_calls(parts, request.turn), provider=DIALECT.origin),
        usage=_usage(data.get("usage") or {}),
        stop_reason=_stop_reason(data, parts),
        model=data.get("model"),
    )


def _stop_reason(data: Mapping[str, Any], parts: Sequence[AssistantPart]) -> StopReason:
    why = (data.get("incomplete_details") or {}).get("reason")
    if why == "content_filter" or any(isinstance(part, RefusalPart) for part in parts):
        return "refusal"
    if why is not None:
        return "max_tokens"
    return "tool_calls" if any(isinstance(part, ToolCall) for part in parts) else "end"


def _parts(item: Mapping[str, Any], approvable: Collection[str]) -> Iterator[AssistantPart]:
    kind = str(item.get("type"))
    if kind == "message":
        native = _known(item, "id", "phase")
        if item.get("status") not in (None, "completed"):
            native["status"] = item["status"]
        for content in item.get("content") or ():
            if content.get("type") == "refusal":
                yield RefusalPart(text=content.get("refusal") or "")
            else:
                yield TextPart(
                    text=content.get("text") or "", native={**native, **_known(content, "annotations")} or None
                )
    elif kind == "function_call":
        name = item.get("name") or ""
        arguments, native = call_arguments(item.get("arguments")), _known(item, "id", "namespace")
        yield ToolCall(id=item.get("call_id") or "", name=name, arguments=arguments, native=native or None)
    elif kind == APPROVAL and item.get("server_label") in approvable:
        asked = {"tool": item.get("name") or "", "arguments": call_arguments(item.get("arguments"))}
        name = approval_name(item["server_label"])
        kept = {key: value for key, value in item.items() if value is not None}
        yield ToolCall(id=item.get("id") or "", name=name, arguments=asked, native={APPROVAL: kept})
    elif kind in UNANSWERABLE:
        raise UnanswerableError(f"the model asks for a {kind!r}, which durably cannot answer: {UNANSWERABLE[kind]}")
    else:
        yield OpaquePart(data={key: value for key, value in item.items() if value is not None})


def _known(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: data[name] for name in names if data.get(name)}


def _usage(data: Mapping[str, Any]) -> Usage:
    read = data.get("input_tokens_details") or {}
    return Usage(
        input_tokens=data.get("input_tokens") or 0,
        output_tokens=data.get("output_tokens") or 0,
        cached_tokens=read.get("cached_tokens") or 0,
        cache_write_tokens=read.get("cache_write_tokens") or 0,
        reasoning_tokens=(data.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def delta(event: Mapping[str, Any]) -> Delta | None:
    """Return what a listener should see of an event of a stream, or ``None``."""
    kind = _DELTAS.get(event.get("type", ""))
    return Delta(kind=kind, text=event["delta"], index=event.get("output_index", 0)) if kind else None
