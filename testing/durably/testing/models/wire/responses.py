"""OpenAI Responses, seen from the server.

Written after https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import json
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
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest, ModelResponse, ToolSpec
from durably.testing.models.wire.chat import check_key, data_url, failure, too_long
from durably.testing.models.wire.strict import (
    NAME,
    Frame,
    InvalidRequest,
    as_object,
    check_schema,
    check_strict,
    only,
    pieces,
    take,
)

__all__ = ["body", "error_frame", "events", "failure", "parse", "too_long"]

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
