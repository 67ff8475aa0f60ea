"""Repairs a conversation so that a provider accepts it.

Owns: the repairs. Does not own: what a provider accepts, which a dialect describes.

Another provider may have made the conversation, compaction may have cut it, a crash may have broken it off. A repair
depends only on the messages before it, so that a longer conversation keeps the same beginning and the provider's prompt
cache still fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
from durably.core.serialization import digest
from durably.providers.calls import parse_arguments
from durably.providers.dialect import Dialect

__all__ = ["EMPTY", "GOES_ON", "NO_RESULT", "repaired"]

EMPTY = "(empty)"
GOES_ON = "(the conversation goes on)"
NO_RESULT = "no result of this call was recorded; call the tool again if its answer is still needed"

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


def repaired(messages: Sequence[Message], dialect: Dialect) -> list[Message]:
    """Return a valid conversation in the dialect: each call has one result, directly after it and in the calls' order.

    A valid conversation is returned as it is.

    Args:
        messages: The conversation, oldest first. It is not changed.
        dialect: The wire format.
    """
    made: list[Message] = []
    names = _CallNames(dialect)
    place = 0
    while place < len(messages):
        message = messages[place]
        end = place + 1
        if isinstance(message, AssistantMessage):
            while end < len(messages) and not isinstance(messages[end], AssistantMessage):
                end += 1
            made += _exchange(message, messages[place + 1 : end], dialect, names)
        elif isinstance(message, UserMessage):
            made.append(_user(message, dialect))
        else:
            made.append(_orphan(message, dialect))
        place = end
    if dialect.joins_answers:
        made = _joined(made, dialect.origin)
    if made and isinstance(last := made[-1], AssistantMessage):
        if not dialect.may_end(last):
            made.append(UserMessage(content=GOES_ON))
        elif dialect.user_first:
            made[-1] = _trimmed(last)
    if not made or (dialect.user_first and isinstance(made[0], AssistantMessage)):
        made.insert(0, UserMessage(content=GOES_ON))
    return made


def _exchange(
    message: AssistantMessage, after: Sequence[Message], dialect: Dialect, names: _CallNames
) -> Iterable[Message]:
    """Yield an assistant message, then the results of its calls, then whatever else came after it."""
    ids = names.take(message.tool_calls, own=message.provider == dialect.origin)
    results = [each for each in after if isinstance(each, ToolResultMessage)]
    answered: list[ToolResultMessage] = []
    for call, call_id in zip(message.tool_calls, ids, strict=True):
        own = next((each for each in results if each.call_id == call.id), None)
        if own is None:
            own = ToolResultMessage(call_id=call_id, name=call.name, content=NO_RESULT, is_error=True)
        else:
            results.remove(own)
        name = _tool_name(call.name)
        answered.append(own.model_copy(update={"call_id": call_id, "name": name}))
    yield _assistant(message, ids, dialect)
    files: list[ContentPart] = []
    for result in answered:
        yield _result(result, dialect, files)
    if files:
        yield UserMessage(content=files)
    for each in after:
        if isinstance(each, UserMessage):
            yield _user(each, dialect)
        elif isinstance(each, ToolResultMessage) and any(each is left for left in results):
            yield _orphan(each, dialect)


class _CallNames:
    """Gives each call of a conversation an id that no earlier one has."""

    def __init__(self, dialect: Dialect) -> None:
        self._forms = {False: dialect.call_ids, True: dialect.own_call_ids}
        self._taken: set[str] = set()
        self._count = 0

    def take(self, calls: Sequence[ToolCall], *, own: bool) -> list[str]:
        return [self._name(call.id, self._forms[own]) for call in calls]

    def _name(self, call_id: str, form: re.Pattern[str]) -> str:
        self._count += 1
        name = call_id
        while name in self._taken or not form.fullmatch(name):
            name = f"call_{digest(f'{self._count} {name}')}"
        self._taken.add(name)
        return name


def _assistant(message: AssistantMessage, ids: Sequence[str], dialect: Dialect) -> AssistantMessage:
    own = message.provider == dialect.origin
    named = iter(ids)
    parts: list[AssistantPart] = []
    for part in message.parts:
        made: AssistantPart | None
        if isinstance(part, ToolCall):
            made = _call(part, next(named), own, dialect)
        elif isinstance(part, ThinkingPart):
            made = part if own and dialect.takes_thinking(part) else None
        elif isinstance(part, OpaquePart):
            made = part if own else None
        elif not part.text.strip():
            made = None
        elif isinstance(part, RefusalPart):
            made = part if dialect.refusals else TextPart(text=part.text)
        else:
            made = part if own or not part.native else TextPart(text=part.text)
        if made is not None:
            parts.append(made)
    if dialect.thinking_first:
        parts = _ordered(parts)
    if not parts or _is_thought(parts[-1]):
        parts.append(TextPart(text=EMPTY))  # every provider refuses an answer that is empty or ends in a thought
    return AssistantMessage(parts=parts, provider=message.provider)


def _is_thought(part: AssistantPart) -> bool:
    if isinstance(part, OpaquePart):
        return part.data.get("type") in ("redacted_thinking", "reasoning")
    return isinstance(part, ThinkingPart)


def _trimmed(message: AssistantMessage) -> AssistantMessage:
    """Remove white space at the end of an answer that is to go on. Providers with ``user_first`` refuse it."""
    last = message.parts[-1]
    if not isinstance(last, TextPart):
        return message
    trimmed = last.model_copy(update={"text": last.text.rstrip()})
    return AssistantMessage(parts=[*message.parts[:-1], trimmed], provider=message.provider)


def _ordered(parts: Iterable[AssistantPart]) -> list[AssistantPart]:
    ranks = {"thinking": 0, "opaque": 0, "text": 1, "refusal": 2, "tool_call": 3}
    made = sorted(parts, key=lambda part: ranks[part.type])
    refusals = [part for part in made if isinstance(part, RefusalPart)]
    if len(refusals) > 1:
        first = made.index(refusals[0])
        whole = RefusalPart(text="\n".join(part.text for part in refusals))
        made[first : first + len(refusals)] = [whole]
    return made


def _call(call: ToolCall, call_id: str, own: bool, dialect: Dialect) -> ToolCall:
    arguments = call.arguments
    if isinstance(arguments, str):
        arguments = parse_arguments(arguments)
        if isinstance(arguments, str) and not dialect.text_arguments:
            arguments = {"malformed_arguments": arguments}
    return ToolCall(id=call_id, name=_tool_name(call.name), arguments=arguments, native=call.native if own else None)


def _tool_name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:64] or "_"


def _result(result: ToolResultMessage, dialect: Dialect, files: list[ContentPart]) -> ToolResultMessage:
    content = _content(result.content, dialect)
    if isinstance(content, list) and not dialect.files_in_results:
        found = [part for part in content if isinstance(part, FilePart)]
        if found:
            files += [TextPart(text=f"Files of the result of {result.name} ({result.call_id}):"), *found]
            said: list[ContentPart] = [part for part in content if isinstance(part, TextPart)]
            content = [*said, TextPart(text="(its files are in the next user message)")]
    is_error = result.is_error
    if is_error and not dialect.error_flag:
        is_error = False
        content = f"Error: {content}" if isinstance(content, str) else [TextPart(text="Error:"), *content]
    return ToolResultMessage(call_id=result.call_id, name=result.name, content=content, is_error=is_error)


def _orphan(result: ToolResultMessage, dialect: Dialect) -> UserMessage:
    """Return a result whose call is gone as a user's message."""
    said = "error" if result.is_error else "result"
    head = TextPart(text=f"[{said} of an earlier call of {result.name}]")
    if isinstance(result.content, str):
        return _user(UserMessage(content=[head, TextPart(text=result.content)]), dialect)
    return _user(UserMessage(content=[head, *result.content]), dialect)


def _user(message: UserMessage, dialect: Dialect) -> UserMessage:
    content = _content(message.content, dialect)
    if isinstance(content, str):
        return UserMessage(content=content if content.strip() else EMPTY)
    return UserMessage(content=content or EMPTY)


def _content(content: str | Sequence[ContentPart], dialect: Dialect) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    made: list[ContentPart] = [
        dialect.file(part) if isinstance(part, FilePart) else TextPart(text=part.text) for part in content
    ]
    return [part for part in made if isinstance(part, FilePart) or part.text.strip()] or ""


def _joined(messages: Iterable[Message], origin: str) -> list[Message]:
    made: list[Message] = []
    for message in messages:
        last = made[-1] if made else None
        if isinstance(message, AssistantMessage) and isinstance(last, AssistantMessage):
            # Foreign parts are dropped by now. Of those that only their origin understands, this origin's are left.
            provider = origin if origin in (message.provider, last.provider) else message.provider
            made[-1] = AssistantMessage(parts=[*last.parts, *message.parts], provider=provider)
        else:
            made.append(message)
    return made
