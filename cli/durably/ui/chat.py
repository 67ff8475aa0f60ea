"""A conversation as a chat: messages in order, each tool call with what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from durably.cli.text import money, pretty_json, spell_tokens
from durably.core import Trace
from durably.core.messages import (
    AssistantMessage,
    ContentPart,
    Message,
    RefusalPart,
    SessionPrefix,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResultMessage,
    UserMessage,
)
from durably.core.trace_parts import TraceConversation, TraceStep

__all__ = ["Chat", "ChatCall", "ChatMessage", "chat", "chats"]

PART = 100
"""Messages that are sent at once; the rest follows as it is scrolled to."""

LONG = 6_000
"""How many characters of one text are shown."""


@dataclass(frozen=True)
class ChatCall:
    """A tool call in a message.

    Attributes:
        name: The tool.
        arguments: What it was called with, as JSON over several lines.
        result: What it answered, or ``None`` while there is no answer.
        is_error: Whether that says that it did not work.
        step: The key of the step that answered, or an empty text.
        child: The run that answered, or ``None``.
    """

    name: str
    arguments: str
    result: str | None
    is_error: bool
    step: str
    child: str | None = None


@dataclass(frozen=True)
class ChatMessage:
    """One bubble.

    Attributes:
        who: ``user``, ``assistant``, ``history`` or ``summary``.
        text: What is said.
        thinking: The model's reasoning.
        calls: The tools it asks for.
        step: The key of the step that said it.
        facts: The model, tokens and cost, in words.
        recorded: Whether the records hold its text.
    """

    who: str
    text: str
    thinking: str = ""
    calls: list[ChatCall] = field(default_factory=list)
    step: str = ""
    facts: list[str] = field(default_factory=list)
    recorded: bool = True


@dataclass(frozen=True)
class Chat:
    """A conversation.

    Attributes:
        number: Its place among those of the run.
        scope: The branch it stands in, or an empty text.
        system: The system prompt.
        messages: What was said, or a part of it.
        more: The place where the next part begins, or 0 if there is none.
        exact: Whether the digests of the records agree.
    """

    number: int
    scope: str
    system: str
    messages: list[ChatMessage]
    more: int
    exact: bool


def chats(trace: Trace) -> list[Chat]:
    """The conversations of a run, each from its beginning on."""
    return [chat(trace, number) for number in range(len(trace.conversations))]


def chat(trace: Trace, number: int, start: int = 0) -> Chat:
    """A part of one conversation.

    Args:
        trace: The run.
        number: The place of the conversation among those of the run.
        start: The number of the message that it begins with.
    """
    conversation = trace.conversations[number]
    steps = {step.key: step for step in trace.walk()}
    part = list(islice(_messages(conversation, steps), start, start + PART + 1))
    return Chat(
        number=number,
        scope=conversation.scope.rstrip("/"),
        system=conversation.system,
        messages=part[:PART],
        more=start + PART if len(part) > PART else 0,
        exact=conversation.exact,
    )


def _messages(conversation: TraceConversation, steps: Mapping[str, TraceStep]) -> Iterator[ChatMessage]:
    results = conversation.results()
    by_call = {entry.message.call_id: entry.step for entry in conversation.entries if _is_result(entry.message)}  # type: ignore[union-attr]
    if isinstance(conversation.history, SessionPrefix):
        before = conversation.history
        yield ChatMessage("history", f"{before.turns} earlier answers in session {before.session_key}", recorded=False)
    else:
        yield from (ChatMessage("history", _shown(_plain_text(message))) for message in conversation.history)
    for entry in conversation.entries:
        if entry.summary is not None:
            yield ChatMessage("summary", _shown(entry.summary), step=entry.step)
        elif isinstance(entry.message, UserMessage):
            yield ChatMessage("user", _shown(_text(entry.message.content)), recorded=entry.recorded)
        elif isinstance(entry.message, AssistantMessage):
            yield _said(entry.message, steps.get(entry.step), results, by_call, steps)


def _said(
    message: AssistantMessage,
    step: TraceStep | None,
    results: Mapping[str, ToolResultMessage],
    by_call: Mapping[str, str],
    steps: Mapping[str, TraceStep],
) -> ChatMessage:
    facts = [] if step is None else [step.model or "", spell_tokens(step.usage), money(step.cost)]
    return ChatMessage(
        "assistant",
        _shown("".join(part.text for part in message.parts if isinstance(part, TextPart | RefusalPart))),
        thinking=_shown("".join(part.text for part in message.parts if isinstance(part, ThinkingPart))),
        calls=[_call(call, results.get(call.id), steps.get(by_call.get(call.id, ""))) for call in message.tool_calls],
        step="" if step is None else step.key,
        facts=[fact for fact in facts if fact],
    )


def _call(call: ToolCall, result: ToolResultMessage | None, step: TraceStep | None) -> ChatCall:
    arguments = call.arguments if isinstance(call.arguments, str) else pretty_arguments(call)
    return ChatCall(
        name=call.name,
        arguments=_shown(arguments),
        result=None if result is None else _shown(pretty_json(_text(result.content))),
        is_error=result is not None and result.is_error,
        step="" if step is None else step.key,
        child=None if step is None else step.child,
    )


def pretty_arguments(call: ToolCall) -> str:
    """The arguments of a call, one a line."""
    return pretty_json(call.model_dump_json(include={"arguments"})[len('{"arguments":') : -1])


def _is_result(message: Message | None) -> bool:
    return isinstance(message, ToolResultMessage)


def _plain_text(message: Message) -> str:
    if isinstance(message, AssistantMessage):
        return f"assistant: {message.text}"
    who = "user" if isinstance(message, UserMessage) else message.name
    return f"{who}: {_text(message.content)}"


def _text(content: str | Sequence[ContentPart]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text if part.type == "text" else f"({part.media_type})" for part in content)


def _shown(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]}… ({len(text) - LONG:,} characters more)"
