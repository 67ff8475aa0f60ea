"""The Anthropic Messages format, as plain JSON.

Owns: requests and answers. Does not own: streams (``anthropic_stream.py``), and sending (``anthropic.py``).

Written after https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeGuard

from durably.core.messages import (
    AssistantMessage,
    AssistantPart,
    ContentPart,
    FilePart,
    Message,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest, ModelResponse, StopReason, ToolSpec, Usage
from durably.providers.answers import check_stop
from durably.providers.anthropic_cache import mark_cached
from durably.providers.anthropic_pairs import paired, thinks_on
from durably.providers.calls import call_arguments, distrust_last_call, merged_tools, name_calls
from durably.providers.dialect import Dialect, unreadable
from durably.providers.schemas import schema_prompt, strict_parameters, strict_schema
from durably.providers.server_tools import MCP_BETA, anthropic_servers, anthropic_tools
from durably.providers.transcript import EMPTY, repaired

__all__ = ["DIALECT", "answer", "has_list_price", "request_body"]

CONTAINER = "durably.container"
"""The type of the part that remembers in which container code of the model ran. No block of the provider's has it."""

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")

MAX_UNIONS = 16
"""How many parts with several types the provider takes in a schema:
https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs#json-schema-limitations"""

_STOPS: dict[str, StopReason] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "tool_calls",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "refusal": "refusal",
    "pause_turn": "pause",
    "compaction": "pause",
}


def _file(part: FilePart) -> ContentPart:
    if part.media_type.startswith("image/") and (part.url or part.media_type in IMAGES) and (part.data or part.url):
        # The format has no media type for an image by address, and no name for one with its bytes.
        if part.data and part.media_type in IMAGES:
            return FilePart(media_type=part.media_type, data=part.data)
        return FilePart(media_type="image/*", url=part.url) if part.url else unreadable(part)
    if part.media_type == "application/pdf" and (part.data or part.url):
        return FilePart(
            media_type=part.media_type, data=part.data, url=None if part.data else part.url, name=part.name or None
        )
    return unreadable(part)


def _goes_on(message: AssistantMessage) -> bool:
    """Whether the provider goes on with an answer that it paused. Newer models refuse to go on with any other."""
    return message.provider == "anthropic" and any(
        isinstance(part, OpaquePart) and part.data.get("type") in ("server_tool_use", "mcp_tool_use", "compaction")
        for part in message.parts
    )


DIALECT = Dialect(
    origin="anthropic",
    file=_file,
    takes_thinking=lambda part: part.signature is not None,
    refusals=False,
    error_flag=True,
    text_arguments=False,
    user_first=True,
    may_end=_goes_on,
)


def request_body(request: ModelRequest, *, model: str, max_tokens: int, cache: bool = True) -> dict[str, Any]:
    """Return the body of a request. The request's options overwrite it, but add to its tools.

    Args:
        request: The request.
        model: The model.
        max_tokens: The longest answer, in tokens. The provider requires it.
        cache: Whether the provider is to keep the conversation so far in its prompt cache.
    """
    options = dict(request.options)
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": _messages(request.messages)}
    system = request.system
    if request.output_schema is not None:
        schema = strict_schema(request.output_schema, recursive=False, unions=MAX_UNIONS)
        if schema is None:
            system = schema_prompt(system, request.output_schema)
        else:
            wanted = {"format": {"type": "json_schema", "schema": schema}}
            body["output_config"] = {**wanted, **options.pop("output_config", {})}
    if system:
        body["system"] = system
    container = _container(request.messages, options)
    if container is not None:
        body["container"] = container
    choice = options.pop("tool_choice", None)
    own = [_tool(spec) for spec in request.tools]
    tools = merged_tools([*own, *anthropic_tools(request.server_tools)], options)
    if servers := anthropic_servers(request.server_tools):
        body["mcp_servers"] = servers
        headers = options.pop("extra_headers", {})
        betas = [*filter(None, [headers.get("anthropic-beta")]), MCP_BETA]
        body["extra_headers"] = {**headers, "anthropic-beta": ",".join(betas)}
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = _tool_choice(choice)
    body |= options
    if (body.get("thinking") or {}).get("type") == "enabled" and not thinks_on(body["messages"]):
        del body["thinking"]  # for the rest of this turn
    if cache:
        mark_cached(body)
    if request.reminder:
        _remind(body, request.reminder)
    return body


def _remind(body: dict[str, Any], reminder: str) -> None:
    """Add a text behind the last breakpoint, unless the provider goes on with an answer or waits for results alone."""
    *before, last = body["messages"]
    callers = [block.get("caller") or {} for block in (before[-1]["content"] if before else ()) if "caller" in block]
    if last["role"] == "user" and not any("code_execution" in str(each.get("type")) for each in callers):
        content = last["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        body["messages"] = [*before, {**last, "content": [*blocks, {"type": "text", "text": reminder}]}]


def _container(messages: Sequence[Message], options: dict[str, Any]) -> Any:
    """The container of the last answer that had one, with what the options say of it, such as skills."""
    asked = options.pop("container", None)
    if isinstance(asked, str):
        return asked
    parts = (part for message in reversed(messages) if _is_own(message) for part in message.parts)
    known = next((part.data for part in parts if isinstance(part, OpaquePart) and part.data["type"] == CONTAINER), None)
    if known is None or _is_past(known.get("expires_at")):
        return asked
    return known["id"] if asked is None else {"id": known["id"], **asked}


def _is_own(message: Message) -> TypeGuard[AssistantMessage]:
    return isinstance(message, AssistantMessage) and message.provider == DIALECT.origin


def _is_past(moment: str | None) -> bool:
    return moment is not None and datetime.fromisoformat(moment) < datetime.now(UTC)


def _tool(spec: ToolSpec) -> dict[str, Any]:
    schema = strict_parameters(spec, recursive=False, unions=MAX_UNIONS) if spec.strict else dict(spec.parameters)
    made: dict[str, Any] = {"name": spec.name, "description": spec.description, "input_schema": schema}
    if spec.strict:
        made["strict"] = True
    if spec.deferred:
        made["defer_loading"] = True
    if spec.examples:
        made["input_examples"] = [*spec.examples]
    return {**made, **spec.native.get(DIALECT.origin, {})}


def _tool_choice(choice: Any) -> Any:
    if not isinstance(choice, str):
        return choice
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    return {"type": kinds[choice]} if choice in kinds else {"type": "tool", "name": choice}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for message in repaired(messages, DIALECT):
        if isinstance(message, ToolResultMessage):
            if not results:
                made.append({"role": "user", "content": results})
            results.append(_result(message))
            continue
        results = []
        if isinstance(message, UserMessage):
            made.append({"role": "user", "content": _content(message.content)})
        else:
            blocks = [_block(part) for part in message.parts if not _is_container(part)]
            made.append({"role": "assistant", "content": blocks or [{"type": "text", "text": EMPTY}]})
    return paired(made, EMPTY)


def _is_container(part: AssistantPart) -> bool:
    return isinstance(part, OpaquePart) and part.data.get("type") == CONTAINER


def _result(message: ToolResultMessage) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": message.call_id, "content": _content(message.content)}
    return {**block, "is_error": True} if message.is_error else block


def _content(content: str | Sequence[ContentPart]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part.text} if isinstance(part, TextPart) else _source(part) for part in content]


def _source(part: FilePart) -> dict[str, Any]:
    if part.data:
        source: dict[str, Any] = {"type": "base64", "media_type": part.media_type, "data": part.data}
    else:
        source = {"type": "url", "url": part.url}
    if part.media_type.startswith("image/"):
        return {"type": "image", "source": source}
    block: dict[str, Any] = {"type": "document", "source": source}
    return {**block, "title": part.name} if part.name else block


def _block(part: AssistantPart) -> dict[str, Any]:
    if isinstance(part, ToolCall):
        return {**(part.native or {}), "type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
    if isinstance(part, ThinkingPart):
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    if isinstance(part, OpaquePart):
        return part.data
    native = part.native if isinstance(part, TextPart) else None
    return {**(native or {}), "type": "text", "text": part.text}


def answer(data: Mapping[str, Any], *, turn: int) -> ModelResponse:
    """Return the response that the provider's JSON means, without cost and request id.

    Args:
        data: The JSON of a message.
        turn: How many assistant messages came before.

    Raises:
        UnanswerableError: If it stopped for a reason that is not known, and says nothing.
    """
    stop = str(data.get("stop_reason") or "end_turn")
    parts = [_part(block) for block in data.get("content") or ()]
    check_stop(stop, _STOPS, parts)
    if _STOPS.get(stop) == "max_tokens":
        distrust_last_call(parts)
    why = (data.get("stop_details") or {}).get("explanation")
    if stop == "refusal" and why:
        parts.append(RefusalPart(text=why))
    if data.get("container"):
        parts.insert(0, OpaquePart(data={**data["container"], "type": CONTAINER}))
    return ModelResponse(
        message=AssistantMessage(parts=name_calls(parts, turn), provider=DIALECT.origin),
        usage=_usage(data.get("usage") or {}),
        stop_reason=_STOPS.get(stop, "end"),
        model=data.get("model"),
    )


def _part(block: Mapping[str, Any]) -> AssistantPart:
    kind = block.get("type")
    if kind == "text":
        return TextPart(text=block.get("text") or "", native=_rest(block, "type", "text"))
    if kind == "tool_use":
        rest = _rest(block, "type", "id", "name", "input")
        arguments = call_arguments(block.get("input"))
        return ToolCall(id=block.get("id") or "", name=block.get("name") or "", arguments=arguments, native=rest)
    if kind == "thinking":
        return ThinkingPart(text=block.get("thinking") or "", signature=block.get("signature"))
    return OpaquePart(data=dict(block))


def _rest(block: Mapping[str, Any], *known: str) -> dict[str, Any] | None:
    return {name: value for name, value in block.items() if name not in known and value is not None} or None


def _usage(data: Mapping[str, Any]) -> Usage:
    """The tokens of an answer. One that the provider compacted in between took several iterations, each billed."""
    return sum((_counts(each) for each in data.get("iterations") or (data,)), Usage())


def _counts(data: Mapping[str, Any]) -> Usage:
    read = data.get("cache_read_input_tokens") or 0
    written = data.get("cache_creation_input_tokens") or 0
    details = data.get("output_tokens_details") or {}
    return Usage(
        input_tokens=(data.get("input_tokens") or 0) + read + written,  # the provider counts the three separately
        output_tokens=data.get("output_tokens") or 0,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=details.get("thinking_tokens") or details.get("reasoning_tokens") or 0,
    )


def has_list_price(data: Mapping[str, Any]) -> bool:
    """Whether an answer costs what the price list says of its tokens: no other tier, speed or region, no searches."""
    usage = data.get("usage") or {}
    return (
        usage.get("service_tier") in (None, "standard", "batch")
        and usage.get("speed") in (None, "standard")
        and usage.get("inference_geo") in (None, "global", "not_available")
        and not (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens")
        and not any((usage.get("server_tool_use") or {}).values())
    )
