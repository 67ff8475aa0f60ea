"""What the server reads: a request, checked as strictly as by the real one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from durably.core.messages import (
    AssistantMessage,
    AssistantPart,
    ContentPart,
    FilePart,
    Message,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.model import ModelRequest, ToolSpec
from durably.testing.models.wire.limits import check_openai, is_reasoning
from durably.testing.models.wire.strict import (
    NAME,
    InvalidRequest,
    as_object,
    check_base64,
    check_schema,
    only,
    take,
)
from durably.testing.models.wire.strict_schema import check_strict

__all__ = ["check_key", "data_url", "parse"]

_KNOWN = frozenset(
    """model messages tools tool_choice stream stream_options temperature top_p max_tokens max_completion_tokens
    n stop response_format parallel_tool_calls reasoning_effort seed user metadata store service_tier logprobs
    top_logprobs frequency_penalty presence_penalty logit_bias modalities audio prediction verbosity
    prompt_cache_key safety_identifier web_search_options""".split()  # noqa: SIM905  # a list of thirty lines is harder to read
)
_SOUNDS = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def check_key(headers: Mapping[str, str]) -> None:
    """Refuse a request without a key."""
    if not headers.get("authorization", "").removeprefix("Bearer "):
        raise InvalidRequest("You didn't provide an API key.", status=401)


def parse(data: Mapping[str, Any], headers: Mapping[str, str]) -> ModelRequest:
    """Read a request.

    Raises:
        InvalidRequest: If the real server would refuse it.
    """
    check_key(headers)
    only(data, _KNOWN, "body")
    _check_limits(data, take(data, "model", str, "body"))
    system, messages = _messages(take(data, "messages", list, "body"))
    if data.get("stream_options") and not data.get("stream"):
        raise InvalidRequest("stream_options: only allowed when stream is true")
    return ModelRequest(
        system=system,
        messages=messages,
        tools=_tools(data),
        turn=sum(isinstance(message, AssistantMessage) for message in messages),
        output_schema=_output_schema(data),
        options={name: data[name] for name in data if name in ("tool_choice", "temperature", "max_tokens")},
    )


def _check_limits(data: Mapping[str, Any], model: str) -> None:
    """Refuse parameters out of their range, and those that a reasoning model does not have.

    See https://platform.openai.com/docs/guides/reasoning and https://platform.openai.com/docs/guides/latest-model.
    """
    check_openai(data, effort=data, effort_name="reasoning_effort", verbosity=data)
    if not is_reasoning(model):
        return
    if "max_tokens" in data:
        raise InvalidRequest(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
    for name, only_value in (("temperature", 1), ("top_p", 1), ("presence_penalty", 0), ("frequency_penalty", 0)):
        if data.get(name) not in (None, only_value):
            raise InvalidRequest(
                f"Unsupported value: '{name}' does not support {data[name]} with this model. Only the default "
                f"({only_value}) value is supported."
            )


def _tools(data: Mapping[str, Any]) -> list[ToolSpec]:
    specs = []
    for place, each in enumerate(data.get("tools", [])):
        if each.get("type") != "function":
            raise InvalidRequest(f"tools.{place}.type: must be 'function'")
        given = take(each, "function", dict, f"tools.{place}")
        only(given, ("name", "description", "parameters", "strict"), f"tools.{place}.function")
        check_schema(given.get("name"), given.get("parameters", {"type": "object"}), f"tools.{place}.function")
        if given.get("strict"):
            check_strict(given.get("parameters"), f"Invalid schema for function '{given['name']}'")
        specs.append(
            ToolSpec(
                name=given["name"], description=given.get("description", ""), parameters=given.get("parameters", {})
            )
        )
    choice = data.get("tool_choice")
    if choice is not None:
        if not specs:
            raise InvalidRequest("tool_choice: only allowed when 'tools' are specified")
        name = choice.get("function", {}).get("name") if isinstance(choice, Mapping) else None
        if choice not in ("auto", "none", "required") and name not in {spec.name for spec in specs}:
            raise InvalidRequest(f"tool_choice: there is no {choice!r}")
    return specs


def _output_schema(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = data.get("response_format")
    if wanted is None or wanted.get("type") == "text":
        return None
    given = take(wanted, "json_schema", dict, "response_format")
    if not NAME.fullmatch(given.get("name", "")):
        raise InvalidRequest("response_format.json_schema.name: required")
    schema: Mapping[str, Any] = take(given, "schema", dict, "response_format.json_schema")
    if given.get("strict"):
        check_strict(schema, "response_format.json_schema.schema")
    return schema


def _messages(data: list[Any]) -> tuple[str, list[Message]]:
    if not data:
        raise InvalidRequest("messages: too short, at least 1 message is required")
    system: list[str] = []
    made: list[Message] = []
    open_calls: dict[str, str] = {}
    for place, each in enumerate(data):
        where = f"messages.{place}"
        role = take(each, "role", str, where)
        if role == "tool":
            made.append(_result(each, open_calls, where))
            continue
        if open_calls:
            raise InvalidRequest(
                f"{where}: an assistant message with 'tool_calls' must be followed by tool messages responding to "
                f"each 'tool_call_id'; missing: {sorted(open_calls)}"
            )
        if role in ("system", "developer"):
            system.append(take(each, "content", str, where))
        elif role == "user":
            only(each, ("role", "content", "name"), where)
            made.append(UserMessage(content=_content(take(each, "content", (str, list), where), where)))
        elif role == "assistant":
            message = AssistantMessage(parts=_assistant(each, where))
            open_calls = {call.id: call.name for call in message.tool_calls}
            if len(open_calls) < len(message.tool_calls):
                raise InvalidRequest(f"{where}: duplicate value for 'tool_call_id'")
            made.append(message)
        else:
            raise InvalidRequest(f"{where}.role: {role!r} is not a role")
    if open_calls:
        raise InvalidRequest(f"messages: no tool message for {sorted(open_calls)}")
    return "\n".join(system), made


def _result(data: Mapping[str, Any], open_calls: dict[str, str], where: str) -> ToolResultMessage:
    only(data, ("role", "tool_call_id", "content"), where)
    call_id = take(data, "tool_call_id", str, where)
    if call_id not in open_calls:
        raise InvalidRequest(
            f"{where}: messages with role 'tool' must respond to a preceding 'tool_calls': {call_id!r}"
        )
    given = take(data, "content", (str, list), where)
    if not given and not isinstance(given, str):
        raise InvalidRequest(f"{where}.content: empty array")
    content: str | list[ContentPart] = given
    if not isinstance(given, str):
        content = [TextPart(text=_text(each, where)) for each in given]
    return ToolResultMessage(call_id=call_id, name=open_calls.pop(call_id), content=content)


def _text(block: Mapping[str, Any], where: str) -> str:
    if take(block, "type", str, where) != "text":
        raise InvalidRequest(f"{where}: content of type {block['type']!r} is not allowed here")
    text: str = take(block, "text", str, where)
    return text


def _assistant(data: Mapping[str, Any], where: str) -> list[AssistantPart]:
    # OpenAI gives no reasoning, and refuses it; the servers that give it, under another address, want it back.
    only(data, ("role", "content", "refusal", "tool_calls", "name", "audio", "reasoning_content"), where)
    content = data.get("content")
    parts: list[AssistantPart] = []
    if data.get("reasoning_content"):
        parts.append(ThinkingPart(text=take(data, "reasoning_content", str, where)))
    if isinstance(content, str):
        parts.append(TextPart(text=content))
    elif content:
        parts += [TextPart(text=_text(each, where)) for each in content]
    if data.get("refusal"):
        parts.append(RefusalPart(text=take(data, "refusal", str, where)))
    for call in data.get("tool_calls") or ():
        parts.append(_call(call, where))
    if not parts:
        raise InvalidRequest(f"{where}.content: required unless there are tool calls")
    return parts


def _call(data: Mapping[str, Any], where: str) -> ToolCall:
    only(data, ("id", "type", "function"), f"{where}.tool_calls")
    call_id = take(data, "id", str, where)
    if not call_id or len(call_id) > 40:
        raise InvalidRequest(f"{where}.tool_calls.id: {call_id!r} must have 1 to 40 characters")
    if data.get("type") != "function":
        raise InvalidRequest(f"{where}.tool_calls.type: must be 'function'")
    function = take(data, "function", dict, where)
    name = take(function, "name", str, where)
    if not NAME.fullmatch(name):
        raise InvalidRequest(f"{where}.tool_calls.function.name: {name!r} does not match {NAME.pattern}")
    return ToolCall(id=call_id, name=name, arguments=as_object(take(function, "arguments", str, where)))


def _content(content: str | list[Any], where: str) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    if not content:
        raise InvalidRequest(f"{where}.content: empty array")
    return [_content_part(each, where) for each in content]


def _content_part(block: Mapping[str, Any], where: str) -> ContentPart:
    kind = take(block, "type", str, where)
    if kind == "image_url":
        address = take(take(block, "image_url", dict, where), "url", str, where)
        return data_url(address, where) if address.startswith("data:") else FilePart(media_type="image/*", url=address)
    if kind == "input_audio":
        sound = take(block, "input_audio", dict, where)
        if sound.get("format") not in _SOUNDS:
            raise InvalidRequest(f"{where}.input_audio.format: {sound.get('format')!r}")
        check_base64(take(sound, "data", str, where), where)
        return FilePart(media_type=_SOUNDS[sound["format"]], data=sound["data"])
    if kind == "file":
        file = take(block, "file", dict, where)
        return data_url(take(file, "file_data", str, where), where, take(file, "filename", str, where))
    return TextPart(text=_text(block, where))


def data_url(address: str, where: str, name: str | None = None, *, also: Collection[str] = ()) -> FilePart:
    """The file that a ``data:`` address holds.

    Args:
        address: The address.
        where: The place of it in the request.
        name: The file's name, or ``None`` for an image.
        also: Media types of files that the format takes beside PDF.
    """
    head, comma, data = address.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InvalidRequest(f"{where}: not a base64 data URL")
    check_base64(data, where)
    media_type = head.removeprefix("data:").removesuffix(";base64")
    known = ("image/png", "image/jpeg", "image/gif", "image/webp") if name is None else ("application/pdf", *also)
    if media_type not in known:
        raise InvalidRequest(f"{where}: unsupported media type {media_type!r}")
    return FilePart(media_type=media_type, data=data, name=name)
