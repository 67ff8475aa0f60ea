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
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest, ToolSpec
from durably.testing.models.wire.chat.request import check_key, data_url
from durably.testing.models.wire.strict import (
    NAME,
    InvalidRequest,
    as_object,
    check_schema,
    check_strict,
    only,
    take,
)

__all__ = ["parse"]

_KNOWN = frozenset(
    """model input instructions tools tool_choice stream store include temperature top_p max_output_tokens text
    reasoning parallel_tool_calls previous_response_id metadata service_tier truncation user background
    max_tool_calls prompt_cache_key safety_identifier stream_options""".split()  # noqa: SIM905  # a list of thirty lines is harder to read
)


def parse(data: Mapping[str, Any], headers: Mapping[str, str]) -> ModelRequest:
    """Read a request.

    Raises:
        InvalidRequest: If the real server would refuse it.
    """
    check_key(headers)
    only(data, _KNOWN, "body")
    take(data, "model", str, "body")
    messages = _messages(take(data, "input", list, "body"))
    return ModelRequest(
        system=data.get("instructions") or "",
        messages=messages,
        tools=_tools(data),
        turn=sum(isinstance(message, AssistantMessage) for message in messages),
        output_schema=_output_schema(data),
        options={name: data[name] for name in data if name in ("tool_choice", "temperature", "reasoning", "store")},
    )


def _tools(data: Mapping[str, Any]) -> list[ToolSpec]:
    specs = []
    for place, each in enumerate(data.get("tools", [])):
        if each.get("type") != "function":
            raise InvalidRequest(f"tools.{place}.type: this server knows only 'function'")
        only(each, ("type", "name", "description", "parameters", "strict"), f"tools.{place}")
        check_schema(each.get("name"), each.get("parameters"), f"tools.{place}")
        if each.get("strict", True):
            check_strict(each["parameters"], f"tools.{place}.parameters")
        specs.append(
            ToolSpec(name=each["name"], description=each.get("description", ""), parameters=each["parameters"])
        )
    choice = data.get("tool_choice")
    if choice is not None:
        name = choice.get("name") if isinstance(choice, Mapping) else None
        if choice not in ("auto", "none", "required") and name not in {spec.name for spec in specs}:
            raise InvalidRequest(f"tool_choice: {choice!r} not found in 'tools'")
    return specs


def _output_schema(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = data.get("text", {}).get("format")
    if wanted is None or wanted.get("type") == "text":
        return None
    if not NAME.fullmatch(wanted.get("name", "")):
        raise InvalidRequest("text.format.name: required")
    schema: Mapping[str, Any] = take(wanted, "schema", dict, "text.format")
    if wanted.get("strict"):
        check_strict(schema, "text.format.schema")
    return schema


def _messages(items: list[Any]) -> list[Message]:
    if not items:
        raise InvalidRequest("input: at least one item is required")
    made: list[Message] = []
    parts: list[AssistantPart] = []
    open_calls: dict[str, str] = {}
    ids: set[str] = set()
    for place, item in enumerate(items):
        where = f"input.{place}"
        kind, role = item.get("type", "message"), item.get("role")
        if kind == "function_call_output" or role in ("user", "system", "developer"):
            _end_answer(made, parts, items[place - 1] if place else {}, where)
            parts = []
            made.append(_result(item, open_calls, where) if role is None else _user(item, where))
            continue
        new = list(_answer_item(item, where))
        for part in new:
            if isinstance(part, ToolCall):
                if part.id in ids:
                    raise InvalidRequest(f"{where}: duplicate call_id {part.id!r}")
                ids.add(part.id)
                open_calls[part.id] = part.name
        parts += new
    _end_answer(made, parts, items[-1], "input")
    if open_calls:
        raise InvalidRequest(f"input: no tool output found for function call {min(open_calls)}")
    return made


def _end_answer(made: list[Message], parts: list[AssistantPart], last: Mapping[str, Any], where: str) -> None:
    if parts:
        if last.get("type") == "reasoning":
            raise InvalidRequest(f"{where}: item of type 'reasoning' was provided without its required following item")
        made.append(AssistantMessage(parts=parts))


def _result(item: Mapping[str, Any], open_calls: dict[str, str], where: str) -> ToolResultMessage:
    only(item, ("type", "call_id", "output", "id", "status"), where)
    call_id = take(item, "call_id", str, where)
    if call_id not in open_calls:
        raise InvalidRequest(f"{where}: no tool call found for function call output with call_id {call_id}")
    content = _content(take(item, "output", (str, list), where), where)
    return ToolResultMessage(call_id=call_id, name=open_calls.pop(call_id), content=content)


def _user(item: Mapping[str, Any], where: str) -> UserMessage:
    if item["role"] != "user":
        raise InvalidRequest(f"{where}.role: this server wants the system prompt in 'instructions'")
    only(item, ("type", "role", "content"), where)
    return UserMessage(content=_content(take(item, "content", (str, list), where), where))


def _content(content: str | list[Any], where: str) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    if not content:
        raise InvalidRequest(f"{where}.content: empty array")
    return [_content_part(each, where) for each in content]


def _content_part(block: Mapping[str, Any], where: str) -> ContentPart:
    kind = take(block, "type", str, where)
    if kind == "input_text":
        return TextPart(text=take(block, "text", str, where))
    if kind == "input_image":
        address = take(block, "image_url", str, where)
        return data_url(address, where) if address.startswith("data:") else FilePart(media_type="image/*", url=address)
    if kind == "input_file":
        if "file_url" in block:
            return FilePart(media_type="application/pdf", url=take(block, "file_url", str, where))
        return data_url(take(block, "file_data", str, where), where, take(block, "filename", str, where))
    raise InvalidRequest(f"{where}: content of type {kind!r} is not allowed here")


def _answer_item(item: Mapping[str, Any], where: str) -> Iterator[AssistantPart]:
    kind = item.get("type", "message")
    if kind == "message":
        if item.get("role") != "assistant":
            raise InvalidRequest(f"{where}.role: {item.get('role')!r} is not a role")
        only(item, ("type", "role", "content", "id", "status", "phase"), where)
        native = {key: item[key] for key in ("id", "phase") if key in item}
        for content in take(item, "content", list, where):
            if content.get("type") == "refusal":
                yield RefusalPart(text=take(content, "refusal", str, where))
                continue
            if content.get("type") != "output_text":
                raise InvalidRequest(f"{where}: an assistant message cannot hold {content.get('type')!r}")
            cited = {"annotations": content["annotations"]} if content.get("annotations") else {}
            yield TextPart(text=take(content, "text", str, where), native={**native, **cited} or None)
    elif kind == "function_call":
        only(item, ("type", "call_id", "name", "arguments", "id", "status", "namespace"), where)
        name, call_id = take(item, "name", str, where), take(item, "call_id", str, where)
        if not NAME.fullmatch(name) or not 1 <= len(call_id) <= 64:
            raise InvalidRequest(f"{where}: call_id {call_id!r} or name {name!r} is not valid")
        native = {"id": item["id"]} if "id" in item else {}
        yield ToolCall(
            id=call_id, name=name, arguments=as_object(take(item, "arguments", str, where)), native=native or None
        )
    elif kind == "reasoning":
        take(item, "id", str, where)
        take(item, "summary", list, where)
        yield OpaquePart(data=dict(item))
    elif kind.endswith("_call"):
        yield OpaquePart(data=dict(item))
    else:
        raise InvalidRequest(f"{where}.type: {kind!r} is not an item")
