"""What a conversation is made of: one message type a role, and the parts they hold.

Providers translate these to and from their own formats. Fields that hold their default are left out of the
JSON, so that a long conversation stays small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from durably.core.serialization import digest

__all__ = [
    "AssistantMessage",
    "AssistantPart",
    "ContentPart",
    "FilePart",
    "Message",
    "OpaquePart",
    "RefusalPart",
    "TextPart",
    "ThinkingPart",
    "ToolCall",
    "ToolResultMessage",
    "Transcript",
    "UserMessage",
    "assistant",
    "user",
]


def _falsy(value: object) -> bool:
    return not value


class _Frozen(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class TextPart(_Frozen):
    """Plain text.

    Args:
        text: The text.
        native: What the provider attached to it (citations, an item's id); it goes back to that provider unchanged.
    """

    type: Literal["text"] = "text"
    text: str
    native: dict[str, Any] | None = Field(default=None, exclude_if=_falsy)


class FilePart(_Frozen):
    """An image or another file, by value or by address.

    Args:
        media_type: Such as ``"image/png"`` or ``"application/pdf"``.
        data: The bytes in base64; or
        url: where the provider finds them.
        name: The file's name, where it matters.
    """

    type: Literal["file"] = "file"
    media_type: str
    data: str | None = Field(default=None, exclude_if=_falsy)
    url: str | None = Field(default=None, exclude_if=_falsy)
    name: str | None = Field(default=None, exclude_if=_falsy)


class ToolCall(_Frozen):
    """The model asks for a tool.

    Args:
        id: Names the call; its result carries the same id.
        name: The tool.
        arguments: The arguments as a JSON object, or the text the model wrote where that is none.
        native: What the provider attached to it (an item's id, a thought's signature); it goes back unchanged.
    """

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: dict[str, Any] | str
    native: dict[str, Any] | None = Field(default=None, exclude_if=_falsy)


class ThinkingPart(_Frozen):
    """The model's reasoning. With a signature it must go back unchanged to the provider that signed it."""

    type: Literal["thinking"] = "thinking"
    text: str
    signature: str | None = Field(default=None, exclude_if=_falsy)


class RefusalPart(_Frozen):
    """The model declined to answer, and why."""

    type: Literal["refusal"] = "refusal"
    text: str


class OpaquePart(_Frozen):
    """A block only its provider understands (redacted thinking, a reasoning item); it goes back unchanged."""

    type: Literal["opaque"] = "opaque"
    data: dict[str, Any]


ContentPart = Annotated[TextPart | FilePart, Field(discriminator="type")]
AssistantPart = Annotated[TextPart | ToolCall | ThinkingPart | RefusalPart | OpaquePart, Field(discriminator="type")]


class UserMessage(_Frozen):
    """What a person, or the program in a person's place, says."""

    role: Literal["user"] = "user"
    content: str | list[ContentPart]


class AssistantMessage(_Frozen):
    """What the model says.

    Args:
        parts: In the model's order.
        provider: Who made it, such as ``"anthropic"``; thinking and opaque parts mean nothing to any other.
    """

    role: Literal["assistant"] = "assistant"
    parts: list[AssistantPart]
    provider: str | None = Field(default=None, exclude_if=_falsy)

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if part.type == "text")

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tools it asks for, in its order."""
        return [part for part in self.parts if part.type == "tool_call"]


class ToolResultMessage(_Frozen):
    """What a tool answered.

    Args:
        call_id: The id of the :class:`ToolCall`.
        name: The tool.
        content: What the model reads.
        is_error: The tool did not do what was asked.
    """

    role: Literal["tool"] = "tool"
    call_id: str
    name: str
    content: str | list[ContentPart]
    is_error: bool = Field(default=False, exclude_if=_falsy)


Message = Annotated[UserMessage | AssistantMessage | ToolResultMessage, Field(discriminator="role")]


def user(text: str) -> UserMessage:
    """A user message of plain text."""
    return UserMessage(content=text)


def assistant(text: str) -> AssistantMessage:
    """An assistant message of plain text."""
    return AssistantMessage(parts=[TextPart(text=text)])


class Transcript:
    """A conversation that only grows, and always knows its own digest.

    The digest is carried along from message to message, so a turn costs the same however long the conversation is.

    Args:
        system: The system prompt.
        messages: The messages so far.
        skipped: How many assistant messages came before these and are left out, since a summary stands for them.
    """

    def __init__(self, system: str, messages: Iterable[Message] = (), skipped: int = 0) -> None:
        self.system = system
        self.messages: list[Message] = []
        self.skipped = skipped
        self.turn = skipped
        """How many assistant messages there were: the position of the next one."""
        self._digest = digest(system)
        self.extend(messages)

    def append(self, message: Message) -> None:
        """Add one message at the end."""
        self.messages.append(message)
        self.turn += message.role == "assistant"
        self._digest = digest(self._digest + message.model_dump_json())

    def extend(self, messages: Iterable[Message]) -> None:
        """Add several messages at the end."""
        for message in messages:
            self.append(message)

    def __digest__(self) -> str:
        return self._digest
