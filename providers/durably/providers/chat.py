"""The chat completions format, as plain JSON. OpenAI, most other servers and litellm speak it.

Owns: requests and answers. Does not own: streams (``chat_stream.py``), and sending (``openai.py``, ``litellm.py``).

Written after https://platform.openai.com/docs/api-reference/chat. The fields ``reasoning_content`` and
``thinking_blocks`` are written after https://docs.litellm.ai/docs/reasoning_content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from durably.core.model import ModelRequest, ModelResponse, StopReason, ToolSpec, Usage
from durably.providers.answers import check_stop, said
from durably.providers.calls import call_arguments, distrust_last_call, merged_tools, name_calls
from durably.providers.chat_cache import Breakpoints, mark_cached
from durably.providers.dialect import Dialect, unreadable
from durably.providers.schemas import described, schema_prompt, strict_parameters, strict_schema
from durably.providers.transcript import repaired

__all__ = ["DIALECT", "REASONING", "answer", "error_of", "image_or_pdf", "is_thought_of", "request_body"]

REASONING = ("reasoning_content", "reasoning")
"""Where servers put reasoning: DeepSeek and litellm in the first field, Groq, Cerebras and OpenRouter in the second."""

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
SOUNDS = {"audio/wav": "wav", "audio/mpeg": "mp3"}

_STOPS: dict[str, StopReason] = {
    "stop": "end",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "length": "max_tokens",
    "content_filter": "refusal",
}


def image_or_pdf(part: FilePart) -> ContentPart:
    """Return an image, or a PDF with its bytes, in OpenAI's form. Of any other file, return a text instead."""
    if part.data and part.media_type in IMAGES:
        return FilePart(media_type=part.media_type, data=part.data)
    if part.url and part.media_type.startswith("image/"):
        return FilePart(media_type="image/*", url=part.url)
    if part.data and part.media_type == "application/pdf":
        return FilePart(media_type=part.media_type, data=part.data, name=part.name or "file.pdf")
    return unreadable(part)


def _file(part: FilePart) -> ContentPart:
    if part.data and part.media_type in SOUNDS:
        return FilePart(media_type=part.media_type, data=part.data)
    return image_or_pdf(part)


DIALECT = Dialect(
    origin="openai-chat",
    file=_file,
    takes_thinking=lambda part: False,
    thinking_first=True,
    files_in_results=False,
)


def request_body(
    request: ModelRequest, *, model: str, dialect: Dialect, native_output: bool, cache: Breakpoints | None = None
) -> dict[str, Any]:
    """Return the body of a request. The request's options overwrite it, but add to its tools.

    Args:
        request: The request.
        model: The model.
        dialect: What the server accepts.
        native_output: Whether the server knows ``response_format``. If not, the system prompt asks for the schema.
        cache: Where breakpoints say up to what the provider is to keep the conversation in its prompt cache, or
            ``None`` for a provider that needs none.
    """
    options = dict(request.options)
    body: dict[str, Any] = {"model": model}
    system = request.system
    if request.output_schema is not None:
        limits: dict[str, Any] = {"recursive": dialect.recursive_schemas, "unions": dialect.schema_unions}
        schema = strict_schema(request.output_schema, **limits) if native_output else None
        if schema is None:
            system = schema_prompt(system, request.output_schema)
        else:
            wanted = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    sent = [_message(message) for message in _forgetful(repaired(request.messages, dialect))]
    body["messages"] = [{"role": "system", "content": system}, *sent] if system else sent
    choice = options.pop("tool_choice", None)
    tools = merged_tools([_tool(spec) for spec in request.tools], options)
    if tools:
        body["tools"] = tools
        if choice is not None:
            named = isinstance(choice, str) and choice not in ("auto", "none", "required")
            body["tool_choice"] = {"type": "function", "function": {"name": choice}} if named else choice
    if cache:
        mark_cached(body, cache)
    if request.reminder:
        body["messages"] = _reminded(body["messages"], request.reminder, alone=cache is not None)
    return {**body, **options}


def _reminded(messages: list[dict[str, Any]], reminder: str, *, alone: bool) -> list[dict[str, Any]]:
    """The conversation with a text behind its newest message: in it, as some servers refuse a question after a result,
    or alone, behind its breakpoint."""
    *before, last = messages
    if last["role"] == "assistant":
        return messages
    text = {"type": "text", "text": reminder}
    if alone:
        return [*messages, {"role": "user", "content": [text]}]
    content = last["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [*before, {**last, "content": [*blocks, text]}]


def is_thought_of(part: ThinkingPart, server: str | None) -> bool:
    """Whether a thought came from a server that wants it back."""
    return server is not None and part.native is not None and part.native.get("server") == server


def _forgetful(messages: Sequence[Message]) -> list[Message]:
    """The conversation with plain reasoning in its last turn alone. DeepSeek wants it there, and refuses it before."""
    last = max((place for place, message in enumerate(messages) if isinstance(message, UserMessage)), default=0)
    return [
        message.model_copy(update={"parts": [part for part in message.parts if not _is_plain_thought(part)]})
        if place < last and isinstance(message, AssistantMessage)
        else message
        for place, message in enumerate(messages)
    ]


def _is_plain_thought(part: AssistantPart) -> bool:
    return isinstance(part, ThinkingPart) and part.native is not None and "details" not in part.native


def _tool(spec: ToolSpec) -> dict[str, Any]:
    schema = strict_parameters(spec) if spec.strict else dict(spec.parameters)
    function: dict[str, Any] = {"name": spec.name, "description": described(spec), "parameters": schema}
    if spec.strict:
        function["strict"] = True
    return {"type": "function", "function": function, **spec.native.get("openai", {})}


def _message(message: Message) -> dict[str, Any]:
    if isinstance(message, UserMessage):
        return {"role": "user", "content": _content(message.content)}
    if isinstance(message, ToolResultMessage):
        return {"role": "tool", "tool_call_id": message.call_id, "content": _content(message.content)}
    return _assistant(message)


def _assistant(message: AssistantMessage) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant"}
    texts = [part for part in message.parts if isinstance(part, TextPart)]
    if len(texts) == 1:
        made["content"] = texts[0].text
    elif texts:
        made["content"] = [{"type": "text", "text": part.text} for part in texts]
    for part in message.parts:
        if isinstance(part, RefusalPart):
            made["refusal"] = part.text
        elif isinstance(part, ToolCall):
            made.setdefault("tool_calls", []).append(_call(part))
        elif isinstance(part, ThinkingPart) and part.native is not None:
            if "details" in part.native:
                made["reasoning_details"] = part.native["details"]
            else:
                made[part.native["field"]] = part.text
        elif isinstance(part, ThinkingPart):
            block = {"type": "thinking", "thinking": part.text, "signature": part.signature}
            made.setdefault("thinking_blocks", []).append(block)
        elif isinstance(part, OpaquePart):
            made.setdefault("thinking_blocks", []).append(part.data)
    return made


def _call(part: ToolCall) -> dict[str, Any]:
    text = part.arguments if isinstance(part.arguments, str) else json.dumps(part.arguments)
    call = {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": text}}
    return {**(part.native or {}), **call}


def _content(content: str | Sequence[ContentPart]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_content_part(part) for part in content]


def _content_part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.media_type in SOUNDS:
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": SOUNDS[part.media_type]}}
    address = part.url or f"data:{part.media_type};base64,{part.data}"
    if part.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": address}}
    return {"type": "file", "file": {"filename": part.name, "file_data": address}}


def answer(data: Mapping[str, Any], request: ModelRequest, *, origin: str, server: str | None = None) -> ModelResponse:
    """Return the response that a server's JSON means, without cost and request id.

    Args:
        data: The JSON of a ``chat.completion``.
        request: The request.
        origin: The provider that the message is marked with.
        server: What wants the answer's reasoning back in the next request, or ``None``.

    Raises:
        ValueError: If it holds no answer.
        UnanswerableError: If it stopped for a reason that is not known, and says nothing.
    """
    choices = data.get("choices")
    if not choices:
        raise ValueError("the response has no choices")
    parts = _parts(choices[0].get("message") or {}, server)
    why = str(choices[0].get("finish_reason") or "stop")
    check_stop(why, _STOPS, parts)
    stop = _STOPS.get(why, "end")
    if any(isinstance(part, RefusalPart) for part in parts):
        stop = "refusal"
    elif stop == "end" and any(isinstance(part, ToolCall) for part in parts):
        stop = "tool_calls"  # some servers say "stop" even then
    elif stop == "max_tokens":
        distrust_last_call(parts)
    return ModelResponse(
        message=AssistantMessage(parts=name_calls(parts, request.turn), provider=origin),
        usage=_usage(data.get("usage") or {}),
        stop_reason=stop,
        model=data.get("model"),
    )


def error_of(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the error that came in the place of an answer, or in the middle of one, with status 200; or ``None``."""
    choice: Mapping[str, Any] = next(iter(data.get("choices") or ()), {})
    error = data.get("error") or choice.get("error")
    if error is None and choice.get("finish_reason") == "error":
        error = "the answer broke off with an error"
    return {"message": error} if isinstance(error, str) else error


def _parts(message: Mapping[str, Any], server: str | None) -> list[AssistantPart]:
    parts: list[AssistantPart] = []
    blocks = message.get("thinking_blocks") or ()
    for block in blocks:
        if block.get("type") == "thinking":
            parts.append(ThinkingPart(text=block.get("thinking") or "", signature=block.get("signature") or None))
        else:
            parts.append(OpaquePart(data=dict(block)))
    named = next((name for name in REASONING if message.get(name)), None)
    reasoning = message[named] if named else ""
    details = message.get("reasoning_details")
    if (reasoning or details) and not blocks:
        native = {"server": server, **({"details": details} if details else {"field": named})} if server else None
        parts.append(ThinkingPart(text=reasoning, native=native))
    text, thought = said(message.get("content"))
    if thought and not reasoning and not blocks:
        parts.append(ThinkingPart(text=thought))
    if text:
        annotations = message.get("annotations")
        parts.append(TextPart(text=text, native={"annotations": annotations} if annotations else None))
    if message.get("refusal"):
        parts.append(RefusalPart(text=message["refusal"]))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        name = function.get("name") or ""
        known = ("id", "type", "function", "index")
        native = {key: value for key, value in call.items() if key not in known and value is not None}
        arguments = call_arguments(function.get("arguments"))
        parts.append(ToolCall(id=call.get("id") or "", name=name, arguments=arguments, native=native or None))
    return parts


def _usage(data: Mapping[str, Any]) -> Usage:
    read = data.get("prompt_tokens_details") or {}
    written = data.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=data.get("prompt_tokens") or 0,
        output_tokens=data.get("completion_tokens") or 0,
        cached_tokens=read.get("cached_tokens") or 0,
        cache_write_tokens=read.get("cache_creation_tokens") or read.get("cache_write_tokens") or 0,
        reasoning_tokens=written.get("reasoning_tokens") or 0,
    )
