"""When a conversation grows too long: its older part gives way to a summary of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from durably.core.errors import DefinitionError
from durably.core.messages import ContentPart, Message, Transcript, user
from durably.core.model import Model, ModelRequest, Usage

__all__ = ["Compaction", "first_kept", "summary_request"]

INSTRUCTIONS = (
    "Summarise the conversation below for the assistant who goes on with it and will not see it again. Keep what was "
    "asked, what was found out (names, numbers, ids, word for word), what was done, and what is left to do. Leave out "
    "everything else. Answer with the summary alone."
)

CLIPPED = 4000
"""How many characters of one message a summary is made from: a single huge tool result must not fill the window."""


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """Replaces the older part of a conversation by a summary, in a step of its own, ``compact``.

    It happens before a turn, when the last one was long; and when the model refuses a conversation as too long. The
    message the run answers always stays. Only what the model sees is made shorter: the result, and a session, keep all.

    Args:
        at_tokens: Compact once a turn read and wrote this many tokens; left out, only when the model refuses.
        keep: How many of the newest messages stay as they are, at least.
        model: Who writes the summary; left out, the agent's own model.
        instructions: What that model is told.

    Raises:
        DefinitionError: If a number is out of range.
    """

    at_tokens: int | None = None
    keep: int = 6
    model: Model | str | None = None
    instructions: str = INSTRUCTIONS

    def __post_init__(self) -> None:
        if self.keep < 0 or (self.at_tokens is not None and self.at_tokens < 1):
            raise DefinitionError("compaction: keep must be 0 or more, and at_tokens 1 or more")

    def is_due(self, usage: Usage) -> bool:
        """Whether the last turn, which used this much, was long enough."""
        return self.at_tokens is not None and usage.input_tokens + usage.output_tokens >= self.at_tokens


def first_kept(messages: Sequence[Message], keep: int) -> int:
    """Where the part that stays begins: a tool's result is not parted from the call it answers."""
    start = max(0, len(messages) - keep)
    while start and start < len(messages) and messages[start].role == "tool":
        start -= 1
    return start


def summary_request(instructions: str, summary: str, older: Transcript) -> ModelRequest:
    """The question that is answered with a summary.

    Args:
        instructions: The system prompt.
        summary: The summary of what came before, or nothing.
        older: What is to be summarised.
    """
    before = [f"(summary of what came before)\n{summary}"] if summary else []
    told = "\n\n".join([*before, *map(_told, older.messages)])
    return ModelRequest(system=instructions, messages=[user(told)])


def _told(message: Message) -> str:
    if message.role == "assistant":
        said = [message.text] if message.text else []
        said += [f"calls {call.name}({call.arguments})" for call in message.tool_calls]
        return f"assistant: {_clip(' '.join(said))}"
    text = message.content if isinstance(message.content, str) else "\n".join(_texts(message.content))
    who = "user" if message.role == "user" else f"{message.name} {'failed' if message.is_error else 'answered'}"
    return f"{who}: {_clip(text)}"


def _texts(parts: Iterable[ContentPart]) -> Iterator[str]:
    for part in parts:
        yield part.text if part.type == "text" else f"({part.media_type})"


def _clip(text: str) -> str:
    return text if len(text) <= CLIPPED else f"{text[:CLIPPED]}... ({len(text) - CLIPPED} characters more)"
