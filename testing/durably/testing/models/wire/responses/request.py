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
from durably.core.model import ModelRequest
from durably.testing.models.wire.chat.request import check_key, data_url
from durably.testing.models.wire.limits import check_openai, is_reasoning
from durably.testing.models.wire.responses.pairs import Pairs, check_stored
from durably.testing.models.wire.responses.tools import tools_of
from durably.testing.models.wire.strict import (
    NAME,
    InvalidRequest,
    as_object,
    only,
    take,
)
from durably.testing.models.wire.strict_schema import check_strict

__all__ = ["parse"]

_KNOWN = frozenset(
    """model input instructions tools tool_choice stream store include temperature top_p max_output_tokens text
    reasoning parallel_tool_calls previous_response_id metadata service_tier truncation user background
    max_tool_calls prompt_cache_key prompt_cache_retention top_logprobs safety_identifier stream_options""".split()  # noqa: SIM905  # a list of thirty lines is harder to read
)

LEAST_TOKENS = 16

_OTHERS = ("mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "tool_search_output", "compaction")
"""Items that neither call a tool nor answer a call."""


_OPEN_XML = "application/vnd.openxmlformats-officedocument."
_OFFICE = {
    "docx": f"{_OPEN_XML}wordprocessingml.document",
    "xlsx": f"{_OPEN_XML}spreadsheetml.sheet",
    "pptx": f"{_OPEN_XML}presentationml.presentation",
}
"""Documents that are taken as files: https://developers.openai.com/api/docs/guides/file-inputs."""


def parse(data: Mapping[str, Any], headers: Mapping[str, str]) -> ModelRequest:
    """Read a request.

    Raises:
        InvalidRequest: If the real server would refuse it.
    """
    check_key(headers)
    only(data, _KNOWN, "body")
    _check_limits(data, take(data, "model", str, "body"))
    messages = _messages(take(data, "input", list, "body"), stored=data.get("store", True))
    return ModelRequest(
        system=data.get("instructions") or "",
        messages=messages,
        tools=tools_of(data),
        turn=sum(isinstance(message, AssistantMessage) for message in messages),
        output_schema=_output_schema(data),
        options={name: data[name] for name in data if name in ("tool_choice", "temperature", "reasoning", "store")},
    )


def _check_limits(data: Mapping[str, Any], model: str) -> None:
    """Refuse parameters out of their range, and those that a model does not have.

    See https://platform.openai.com/docs/guides/reasoning and https://platform.openai.com/docs/guides/latest-model.
    """
    text = data.get("text") or {}
    check_openai(data, effort=data.get("reasoning") or {}, effort_name="effort", verbosity=text)
    if data.get("max_output_tokens", LEAST_TOKENS) < LEAST_TOKENS:
        raise InvalidRequest(
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {LEAST_TOKENS}."
        )
    if is_reasoning(model):
        for name in ("temperature", "top_p", "top_logprobs"):
            if data.get(name) is not None:
                raise InvalidRequest(f"Unsupported parameter: '{name}' is not supported with this model.")
        return
    if data.get("reasoning"):
        raise InvalidRequest("Unsupported parameter: 'reasoning.effort' is not supported with this model.")
    if "reasoning.encrypted_content" in data.get("include", ()):
        raise InvalidRequest("Encrypted content is not supported with this model.")


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


def _messages(items: list[Any], *, stored: bool) -> list[Message]:
    if not items:
        raise InvalidRequest("input: at least one item is required")
    made: list[Message] = []
    parts: list[AssistantPart] = []
    pairs = Pairs()
    for place, item in enumerate(items):
        where = f"input.{place}"
        kind, role = item.get("type", "message"), item.get("role")
        check_stored(item, stored=stored)
        if kind == "function_call_output" or role in ("user", "system", "developer"):
            _end_answer(made, parts, items[place - 1] if place else {}, where)
            parts = []
            made.append(_result(item, pairs, where) if role is None else _user(item, where))
            continue
        parts += _answer_item(item, where)
        pairs.take(item, where)
    _end_answer(made, parts, items[-1], "input")
    pairs.check()
    return made


def _end_answer(made: list[Message], parts: list[AssistantPart], last: Mapping[str, Any], where: str) -> None:
    if parts:
        if last.get("type") == "reasoning":
            raise InvalidRequest(f"{where}: item of type 'reasoning' was provided without its required following item")
        made.append(AssistantMessage(parts=parts))


def _result(item: Mapping[str, Any], pairs: Pairs, where: str) -> ToolResultMessage:
    only(item, ("type", "call_id", "output", "id", "status"), where)
    name = pairs.answer(item, where)
    content = _content(take(item, "output", (str, list), where), where)
    return ToolResultMessage(call_id=item["call_id"], name=name, content=content)


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
        name = take(block, "filename", str, where)
        made = data_url(take(block, "file_data", str, where), where, name, also=_OFFICE.values())
        if made.media_type != _OFFICE.get(name.rpartition(".")[2].lower(), "application/pdf"):
            raise InvalidRequest(f"{where}.filename: {name!r} does not say that it is a {made.media_type}")
        return made
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
    elif kind.endswith(("_call", "_call_output")) or kind in _OTHERS:
        yield OpaquePart(data=dict(item))
    else:
        raise InvalidRequest(f"{where}.type: {kind!r} is not an item")
