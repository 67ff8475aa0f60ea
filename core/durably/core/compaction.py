"""Compaction: a summary replaces the older part of a long conversation, or old results of tools are left out.

Owns: when it is due, where the cut falls, and the request for a summary. Does not own: the step that makes it
(``shortening.py``) and the transcript that is cut (``conversation.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from durably.core.answers import recordable
from durably.core.counts import is_count
from durably.core.error_text import shown
from durably.core.errors import DefinitionError, ModelError
from durably.core.messages import ContentPart, Message, user
from durably.core.model import Model, ModelRequest, ModelResponse, Usage, resolve_model
from durably.core.named_values import NamedValues

__all__ = ["Compaction", "checked_summary", "first_kept", "summary_message", "summary_note", "summary_request"]

INSTRUCTIONS = (
    "Summarise the conversation below for the assistant who goes on with it and will not see it again. Keep what was "
    "asked, what was found out (names, numbers, ids, word for word), what was done, and what is left to do. Leave out "
    "everything else. Answer with the summary alone."
)

CLIPPED = 4000
"""How many characters of each message a summary is made from. Without the limit, one huge tool result would make the
request for the summary too long as well."""


@dataclass(frozen=True, kw_only=True)
class Compaction(NamedValues):
    """Replaces the older part of a conversation by a summary, in a step ``compact``.

    This happens before a turn if the last turn was long, and when the model rejects the conversation as too long. The
    message that the run answers stays. Only what the model sees becomes shorter: ``result.messages`` and sessions keep
    every message.

    Args:
        at_tokens: Compact after a turn with this many tokens, read and written. Default: only when the model rejects
            the conversation.
        keep: How many of the newest messages stay. More stay if a tool's result would lose its call.
        model: The model that writes the summary. Default: the agent's own.
        instructions: The system prompt of the summary.
        prune: Whether to remove old tool results first. A summary is made only if the conversation is still too long
            then.
        save: Whether to keep the summary in the session. The next run then begins with it and the later messages. The
            session keeps all messages.

    Raises:
        DefinitionError: If a number is out of range.
    """

    _example = "Compaction(at_tokens=150_000)"

    at_tokens: int | None = None
    keep: int = 6
    model: Model | str | None = None
    instructions: str = INSTRUCTIONS
    prune: bool = False
    save: bool = False

    def __post_init__(self) -> None:
        fits = is_count(self.keep, 0) and (self.at_tokens is None or is_count(self.at_tokens, 1))
        if not fits:
            raise DefinitionError(
                "compaction: keep must be 0 or more, and at_tokens 1 or more, both whole numbers, not "
                f"keep={shown(self.keep)} and at_tokens={shown(self.at_tokens)}"
            )

    def is_due(self, usage: Usage) -> bool:
        """Return whether a turn with this usage was long enough."""
        return self.at_tokens is not None and usage.input_tokens + usage.output_tokens >= self.at_tokens

    def summarizer(self, model: Model) -> Model:
        """Return the model that writes the summaries of an agent with this model."""
        return model if self.model is None else resolve_model(self.model)


def first_kept(messages: Sequence[Message], keep: int) -> int:
    """Return the position of the first message that stays."""
    start = max(0, len(messages) - keep)
    # Providers refuse a tool's result without its call, so the cut moves back to the message with the calls.
    while start and start < len(messages) and messages[start].role == "tool":
        start -= 1
    return start


def summary_note(summary: str) -> str:
    """Return a summary as the model is told it."""
    return f"(What was said before, and what you have done so far, in short:)\n{summary}"


def summary_message(summary: str) -> Message:
    """Return the message that stands for what a summary tells."""
    return user(summary_note(summary))


def summary_request(instructions: str, summary: str, older: Sequence[Message]) -> ModelRequest:
    """Return the request for a summary.

    Args:
        instructions: The system prompt.
        summary: The summary of what came before, or an empty text.
        older: The messages to summarise.
    """
    before = [f"(summary of what came before)\n{summary}"] if summary else []
    told = "\n\n".join([*before, *map(_told, older)])
    return ModelRequest(system=instructions, messages=[user(told)])


def checked_summary(response: ModelResponse, model: Model) -> ModelResponse:
    """Return a summary as a record can hold it, or the promise of one.

    Raises:
        ModelError: If it is empty.
    """
    kept = recordable(response)
    if kept.submitted is None and not kept.message.text:
        provider, _, name = model.name.partition(":")
        raise ModelError("the summary is empty", provider=provider, model=name, retriable=True)
    return kept


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
