"""What the model is told of the end that comes: the turns and the budget that are left.

It is the last message of a request, and stands in no transcript. The system prompt and all messages before it stay as
they were, so that a provider's prompt cache goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from durably.core.messages import Message, TextPart, UserMessage

__all__ = ["hint_text", "with_hint"]


def hint_text(turns_left: int | None, spent: int | None) -> str:
    """Return the words.

    Args:
        turns_left: How many turns are left, this one included; ``None`` to say nothing of it.
        spent: How much of the budget is spent, in percent; ``None`` to say nothing of it.
    """
    said = []
    if turns_left is not None:
        turns = "turn" if turns_left == 1 else "turns"
        said.append(f"You have {turns_left} {turns} left, this one included.")
    if spent is not None:
        said.append(f"{spent}% of your budget is spent.")
    return " ".join([*said, "Bring the work to an end."]) if said else ""


def with_hint(messages: Sequence[Message], text: str) -> Sequence[Message]:
    """Return the messages with a hint at the end, if there is one."""
    if not text:
        return messages
    note = f"({text})"
    if not messages or not isinstance(messages[-1], UserMessage):
        return [*messages, UserMessage(content=note)]
    last = messages[-1].content  # some providers refuse two user messages in a row
    content = f"{last}\n\n{note}" if isinstance(last, str) else [*last, TextPart(text=note)]
    return [*messages[:-1], UserMessage(content=content)]
