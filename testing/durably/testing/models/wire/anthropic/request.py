"""What the server reads: a request, checked as strictly as by the real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from durably.core.messages import (
    AssistantMessage,
    AssistantPart,
    ContentPart,
    FilePart,
    Message,
    OpaquePart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest
from durably.testing.models.wire.anthropic.parameters import check_last_message, check_parameters
from durably.testing.models.wire.anthropic.tools import check_container, check_server_tools, tools_of
from durably.testing.models.wire.strict import (
    NAME,
    InvalidRequest,
    check_base64,
    only,
    take,
)
from durably.testing.models.wire.strict_schema import check_strict_for_claude

__all__ = ["parse"]

_KNOWN = frozenset(
    """model max_tokens messages system tools tool_choice stream metadata stop_sequences temperature top_k top_p
    thinking output_config service_tier container context_management cache_control mcp_servers speed
    inference_geo""".split()  # noqa: SIM905  # a list of thirty lines is harder to read
)
_OPTIONS = ("tool_choice", "temperature", "thinking", "max_tokens", "output_config", "container", "mcp_servers")

BREAKPOINTS = 4

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def parse(data: Mapping[str, Any], headers: Mapping[str, str]) -> ModelRequest:
    """Read a request.

    Raises:
        InvalidRequest: If the real server would refuse it.
    """
    if not headers.get("x-api-key") and not headers.get("authorization", "").startswith("Bearer "):
        raise InvalidRequest("x-api-key header is required", status=401)
    if not headers.get("anthropic-version"):
        raise InvalidRequest("anthropic-version: header is required")
    beta = ["output_format"] if "structured-outputs" in headers.get("anthropic-beta", "") else []
    only(data, [*_KNOWN, *beta], "body")
    if take(data, "max_tokens", int, "body") < 1:
        raise InvalidRequest("max_tokens: must be 1 or more")
    take(data, "model", str, "body")
    system = data.get("system", "")
    if not isinstance(system, str):
        system = "".join(take(block, "text", str, "system") for block in system)
    messages = _messages(take(data, "messages", list, "body"))
    _check_breakpoints(data)
    check_parameters(data, headers)
    check_server_tools(data["messages"])
    check_container(data)
    check_last_message(data)
    return ModelRequest(
        system=system,
        messages=messages,
        tools=tools_of(data, headers.get("anthropic-beta", "")),
        turn=sum(isinstance(message, AssistantMessage) for message in messages),
        output_schema=_output_schema(data),
        options={name: data[name] for name in data if name in _OPTIONS},
    )


def _check_breakpoints(data: Mapping[str, Any]) -> None:
    """Refuse what the documentation of prompt caching excludes: more than four, or one on an empty text."""
    contents = [data.get("system"), *(message["content"] for message in data["messages"])]
    blocks = [*data.get("tools", ()), *(block for each in contents if isinstance(each, list) for block in each)]
    marked = [block for block in blocks if "cache_control" in block]
    if len(marked) > BREAKPOINTS:
        raise InvalidRequest(
            f"A maximum of {BREAKPOINTS} blocks with cache_control may be provided. Found {len(marked)}."
        )
    if any(block.get("type") == "text" and not block["text"] for block in marked):
        raise InvalidRequest("cache_control cannot be set for empty text blocks")


def _output_schema(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = data.get("output_config", {}).get("format") or data.get("output_format")
    if wanted is None:
        return None
    if wanted.get("type") != "json_schema":
        raise InvalidRequest("output_config.format.type: must be 'json_schema'")
    check_strict_for_claude(wanted.get("schema"), "output_config.format.schema")
    schema: Mapping[str, Any] = wanted["schema"]
    return schema


def _messages(data: list[Any]) -> list[Message]:
    if not data:
        raise InvalidRequest("messages: at least one message is required")
    if data[0].get("role") != "user":
        raise InvalidRequest('messages.0.role: the first message must use the "user" role')
    made: list[Message] = []
    calls: dict[str, str] = {}
    open_calls: dict[str, str] = {}
    for place, each in enumerate(data):
        where = f"messages.{place}"
        only(each, ("role", "content"), where)
        role, content = take(each, "role", str, where), take(each, "content", (str, list), where)
        if role == "assistant":
            _refuse_open(open_calls, where)
            message = AssistantMessage(parts=_assistant(content, where))
            open_calls = {call.id: call.name for call in message.tool_calls}
            _check_calls(message.tool_calls, calls, where)
            calls.update(open_calls)
            made.append(message)
        elif role == "user":
            made += _user(content, open_calls, where)
        else:
            raise InvalidRequest(f"{where}.role: {role!r} is neither 'user' nor 'assistant'")
    _refuse_open(open_calls, "messages")
    last = made[-1]
    if isinstance(last, AssistantMessage) and last.text != last.text.rstrip() and last.parts[-1].type == "text":
        raise InvalidRequest("messages: final assistant content cannot end with trailing whitespace")
    return made


def _refuse_open(open_calls: Mapping[str, str], where: str) -> None:
    if open_calls:
        raise InvalidRequest(f"{where}: `tool_use` ids were found without `tool_result` blocks: {sorted(open_calls)}")


def _check_calls(calls: list[ToolCall], earlier: Mapping[str, str], where: str) -> None:
    ids = [call.id for call in calls]
    if len(set(ids)) < len(ids) or any(each in earlier for each in ids):
        raise InvalidRequest(f"{where}: `tool_use` ids must be unique")


def _assistant(content: str | list[Any], where: str) -> list[AssistantPart]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not content:
        raise InvalidRequest(f"{where}.content: all messages must have non-empty content")
    if content[-1].get("type") in ("thinking", "redacted_thinking"):
        raise InvalidRequest(f"{where}: the final block in an assistant message cannot be `thinking`")
    return [_assistant_part(block, where) for block in content]


def _assistant_part(block: Mapping[str, Any], where: str) -> AssistantPart:
    kind = take(block, "type", str, where)
    if kind == "text":
        only(block, ("type", "text", "citations", "cache_control"), where)
        text = take(block, "text", str, where)
        if not text.strip():
            raise InvalidRequest(f"{where}: text content blocks must contain non-whitespace text")
        native = {key: value for key, value in block.items() if key not in ("type", "text")}
        return TextPart(text=text, native=native or None)
    if kind == "tool_use":
        only(block, ("type", "id", "name", "input", "cache_control", "caller"), where)
        name, call_id = take(block, "name", str, where), take(block, "id", str, where)
        if not NAME.fullmatch(name) or not NAME.fullmatch(call_id):
            raise InvalidRequest(f"{where}.tool_use: id {call_id!r} and name {name!r} must match {NAME.pattern}")
        native = {key: value for key, value in block.items() if key not in ("type", "id", "name", "input")}
        return ToolCall(id=call_id, name=name, arguments=take(block, "input", dict, where), native=native or None)
    if kind == "thinking":
        only(block, ("type", "thinking", "signature"), where)
        signature = take(block, "signature", str, where)
        if not signature:
            raise InvalidRequest(f"{where}: invalid `signature` in `thinking` block")
        return ThinkingPart(text=take(block, "thinking", str, where), signature=signature)
    if kind == "redacted_thinking":
        take(block, "data", str, where)
        return OpaquePart(data=dict(block))
    if kind in ("server_tool_use", "mcp_tool_use", "compaction", "container_upload") or kind.endswith("_tool_result"):
        return OpaquePart(data=dict(block))
    raise InvalidRequest(f"{where}: an assistant message cannot hold {kind!r}")


def _user(content: str | list[Any], open_calls: dict[str, str], where: str) -> Iterator[Message]:
    if isinstance(content, str):
        _refuse_open(open_calls, where)
        if not content.strip():
            raise InvalidRequest(f"{where}: text content blocks must contain non-whitespace text")
        yield UserMessage(content=content)
        return
    if not content:
        raise InvalidRequest(f"{where}.content: all messages must have non-empty content")
    rest = list(content)
    while rest and rest[0].get("type") == "tool_result":
        yield _result(rest.pop(0), open_calls, where)
    _refuse_open(open_calls, where)
    if rest:
        yield UserMessage(content=[_content_part(block, where) for block in rest])


def _result(block: Mapping[str, Any], open_calls: dict[str, str], where: str) -> ToolResultMessage:
    only(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), where)
    call_id = take(block, "tool_use_id", str, where)
    if call_id not in open_calls:
        raise InvalidRequest(f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}")
    content = block.get("content", "")
    if not isinstance(content, str):
        content = [_content_part(each, where) for each in content]
    return ToolResultMessage(
        call_id=call_id, name=open_calls.pop(call_id), content=content, is_error=block.get("is_error", False)
    )


def _content_part(block: Mapping[str, Any], where: str) -> ContentPart:
    kind = take(block, "type", str, where)
    if kind == "text":
        only(block, ("type", "text", "cache_control"), where)
        text = take(block, "text", str, where)
        if not text.strip():
            raise InvalidRequest(f"{where}: text content blocks must contain non-whitespace text")
        return TextPart(text=text)
    if kind not in ("image", "document"):
        raise InvalidRequest(f"{where}: a user message cannot hold {kind!r}")
    source = take(block, "source", dict, where)
    only(block, ("type", "source", "title", "context", "citations", "cache_control"), where)
    if source.get("type") == "url":
        only(source, ("type", "url"), where)
        media_type = "image/*" if kind == "image" else "application/pdf"
        return FilePart(media_type=media_type, url=take(source, "url", str, where), name=block.get("title"))
    if source.get("type") != "base64":
        raise InvalidRequest(f"{where}.source.type: {source.get('type')!r}")
    media_type = take(source, "media_type", str, where)
    if media_type not in (_IMAGES if kind == "image" else ("application/pdf",)):
        raise InvalidRequest(f"{where}.source.media_type: {media_type!r} is not supported for a {kind}")
    check_base64(take(source, "data", str, where), where)
    return FilePart(media_type=media_type, data=source["data"], name=block.get("title"))
