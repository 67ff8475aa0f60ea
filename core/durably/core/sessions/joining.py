"""A session and the messages of a run as one conversation that every provider takes."""

from __future__ import annotations

from collections.abc import Sequence

from durably.core.messages import AssistantMessage, ContentPart, Message, TextPart, ToolResultMessage, UserMessage

__all__ = ["joined"]

INTERRUPTED = "(This call was cut off before it was answered. It may or may not have had its effect.)"


def joined(before: Sequence[Message], now: Sequence[Message]) -> list[Message]:
    """A session and the messages of a run, as every provider takes them.

    Each call is followed by its answer: one that was saved later is moved there, and one that is missing, because its
    run was cancelled or failed, is said to be. Answers without a call are left out. User messages that follow each
    other become one, and a message that was saved before the run began does not stand there twice.

    Args:
        before: The messages of the session.
        now: The messages of the run; the first one is the message it answers.
    """
    if before and now and before[-1] == now[0]:
        before = before[:-1]
    closed = _closed(before)
    if closed and now and isinstance(closed[-1], UserMessage) and isinstance(now[0], UserMessage):
        return [*closed[:-1], _merged(closed[-1], now[0]), *now[1:]]
    return [*closed, *now]


def _closed(messages: Sequence[Message]) -> list[Message]:
    answers: dict[str, list[tuple[int, ToolResultMessage]]] = {}
    for position, message in enumerate(messages):
        if isinstance(message, ToolResultMessage):
            answers.setdefault(message.call_id, []).append((position, message))
    closed: list[Message] = []
    for position, message in enumerate(messages):
        if isinstance(message, ToolResultMessage):
            continue
        if isinstance(message, UserMessage) and closed and isinstance(closed[-1], UserMessage):
            closed[-1] = _merged(closed[-1], message)
            continue
        closed.append(message)
        if isinstance(message, AssistantMessage):
            for call in message.tool_calls:
                # An id may be used again, turns later: each call takes the first answer after it that is left.
                later = answers.get(call.id, [])
                found = next((each for each in later if each[0] > position), None)
                if found is not None:
                    later.remove(found)
                    closed.append(found[1])
                else:
                    closed.append(
                        ToolResultMessage(call_id=call.id, name=call.name, content=INTERRUPTED, is_error=True)
                    )
    return closed


def _merged(one: UserMessage, other: UserMessage) -> UserMessage:
    if isinstance(one.content, str) and isinstance(other.content, str):
        return UserMessage(content=f"{one.content}\n\n{other.content}")
    return UserMessage(content=[*_parts(one), *_parts(other)])


def _parts(message: UserMessage) -> list[ContentPart]:
    return [TextPart(text=message.content)] if isinstance(message.content, str) else list(message.content)
