"""The messages of a conversation: one class for each role, and the parts they hold.

Owns: their shape and their JSON. Fields that hold their default are left out of it, so that a long conversation stays
small. Does not own: the providers' formats (``durably.providers``) and what a model sees of a long conversation
(``conversation.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from durably.core.left_out import is_falsy
from durably.core.serialization import digest

__all__ = [
    "AssistantMessage",
    "AssistantPart",
    "ContentPart",
    "FilePart",
    "JSONObject",
    "Message",
    "OpaquePart",
    "RefusalPart",
    "SessionEntry",
    "SessionNote",
    "SessionPrefix",
    "TextPart",
    "ThinkingPart",
    "ToolCall",
    "ToolResultMessage",
    "Transcript",
    "UserMessage",
    "assistant",
    "user",
]


JSONObject = dict[str, Any]
"""A JSON object whose keys are not known here, such as a tool's arguments or what a provider attached to a message."""


class _Frozen(BaseModel):
    # defer_build: pydantic makes a schema at its first use. Without it, each import would pay for all of them.
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class TextPart(_Frozen):
    """Plain text.

    Args:
        text: The text.
        native: What the provider attached to it, such as citations or an item's id. It goes back to that provider
            unchanged.
    """

    type: Literal["text"] = "text"
    text: str
    native: JSONObject | None = Field(default=None, exclude_if=is_falsy)


class FilePart(_Frozen):
    """An image or another file. Give either its bytes or its address.

    Args:
        media_type: Such as ``"image/png"`` or ``"application/pdf"``.
        data: The bytes in base64.
        url: The address where the provider finds the file.
        name: The file's name, if the model should know it.
    """

    type: Literal["file"] = "file"
    media_type: str
    data: str | None = Field(default=None, exclude_if=is_falsy)
    url: str | None = Field(default=None, exclude_if=is_falsy)
    name: str | None = Field(default=None, exclude_if=is_falsy)


class ToolCall(_Frozen):
    """A call of a tool that the model asks for.

    Args:
        id: Identifies the call. Its result carries the same id.
        name: The tool.
        arguments: The arguments as a JSON object, or the model's text if it is something else.
        native: What the provider attached to it, such as an item's id or a thought's signature. It goes back to that
            provider unchanged.
    """

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: JSONObject | str
    native: JSONObject | None = Field(default=None, exclude_if=is_falsy)


class ThinkingPart(_Frozen):
    """The model's reasoning.

    Args:
        text: The reasoning.
        signature: The provider's signature. With one, the part must go back to that provider unchanged.
        native: What the provider attached to it, if it wants that back.
    """

    type: Literal["thinking"] = "thinking"
    text: str
    signature: str | None = Field(default=None, exclude_if=is_falsy)
    native: JSONObject | None = Field(default=None, exclude_if=is_falsy)


class RefusalPart(_Frozen):
    """The text with which the model declined to answer."""

    type: Literal["refusal"] = "refusal"
    text: str


class OpaquePart(_Frozen):
    """A block that only its provider understands, such as redacted thinking.

    Args:
        data: The block. It goes back to that provider unchanged.
    """

    type: Literal["opaque"] = "opaque"
    data: JSONObject


# A discriminator lets pydantic choose the class by one field; without it, each class is tried in turn.
ContentPart = Annotated[TextPart | FilePart, Field(discriminator="type")]
"""A part of what a user says or a tool answers: text or a file."""

AssistantPart = Annotated[TextPart | ToolCall | ThinkingPart | RefusalPart | OpaquePart, Field(discriminator="type")]
"""A part of what a model says."""


class UserMessage(_Frozen):
    """A message of the user, or of a program in the user's place."""

    role: Literal["user"] = "user"
    content: str | list[ContentPart]


class AssistantMessage(_Frozen):
    """A message of the model.

    Args:
        parts: The parts, in the model's order.
        provider: The provider that made it, such as ``"anthropic"``. Only this provider understands its thinking and
            opaque parts.
    """

    role: Literal["assistant"] = "assistant"
    parts: list[AssistantPart]
    provider: str | None = Field(default=None, exclude_if=is_falsy)

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if part.type == "text")

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls it asks for, in the model's order."""
        return [part for part in self.parts if part.type == "tool_call"]


class ToolResultMessage(_Frozen):
    """The result of a tool call.

    Args:
        call_id: The id of the :class:`ToolCall` that it answers.
        name: The tool.
        content: The result for the model.
        is_error: Whether the call failed.
        metadata: The tool's data for programs. The model does not see it.
    """

    role: Literal["tool"] = "tool"
    call_id: str
    name: str
    content: str | list[ContentPart]
    is_error: bool = Field(default=False, exclude_if=is_falsy)
    metadata: JSONObject | None = Field(default=None, exclude_if=is_falsy)


Message = Annotated[UserMessage | AssistantMessage | ToolResultMessage, Field(discriminator="role")]
"""Any message of a conversation."""


class SessionNote(_Frozen):
    """A note of the library between the messages of a session. No model sees it.

    Args:
        summary: A summary, which replaces the first appends of the session from here on.
        appends: How many appends it replaces.
        answered: The runs whose messages are answered by the message before this note.
    """

    role: Literal["note"] = "note"
    summary: str | None = Field(default=None, exclude_if=is_falsy)
    appends: int = Field(default=0, ge=0, exclude_if=is_falsy)
    answered: list[str] = Field(default=[], exclude_if=is_falsy)


SessionEntry = Annotated[UserMessage | AssistantMessage | ToolResultMessage | SessionNote, Field(discriminator="role")]
"""What a session holds: messages, and notes between them."""


def user(text: str) -> UserMessage:
    """Return a user message of plain text."""
    return UserMessage(content=text)


def assistant(text: str) -> AssistantMessage:
    """Return an assistant message of plain text."""
    return AssistantMessage(parts=[TextPart(text=text)])


class SessionPrefix(_Frozen):
    """How far a run has read its session. It is recorded instead of the messages.

    Attributes:
        session_key: The session.
        appends: How many appends it holds.
        digest: A text that is equal for equal messages.
        turns: How many assistant messages it holds.
    """

    session_key: str
    appends: int
    digest: str
    turns: int


class Transcript:
    """A conversation as the argument of a step. It can only grow.

    A record keeps the digest of a transcript, not its text. Each message extends the digest of those before it, so that
    a turn takes the same time however long the conversation is.

    Args:
        system: The system prompt.
        messages: The messages so far.
        skipped: How many assistant messages came before these and were replaced by a summary.
        before: The earlier messages of the session, or ``None``.
        pruned: For how many messages the tool results are removed, in addition to those of the session; ``None`` for
            none.
        spent: See below.

    Attributes:
        system: The system prompt.
        before: See above.
        pruned: See above.
        spent: How much of the budget is spent, in percent, if the model is to be told. It follows from what is
            recorded, and is no part of the digest.
        messages: The messages. Add to them only with :meth:`append` and :meth:`extend`, which update the digest.
        skipped: See above.
        turn: How many assistant messages there were, the skipped ones and those of the session included.
    """

    def __init__(
        self,
        system: str,
        messages: Iterable[Message] = (),
        skipped: int = 0,
        before: SessionPrefix | None = None,
        pruned: int | None = None,
        spent: int | None = None,
    ) -> None:
        self.system = system
        self.before = before
        self.messages: list[Message] = []
        self.skipped = skipped
        self.pruned = pruned
        self.spent = spent
        self.turn = skipped + (0 if before is None else before.turns)
        self._digest = digest(system if before is None else system + before.model_dump_json())
        self.extend(messages)

    def prune(self, keep: int) -> None:
        """Remove old tool results from what the model sees, except in the newest messages."""
        self.pruned = max(0, len(self.messages) - keep)
        self._digest = digest(f"{self._digest} pruned {self.pruned}")

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
        """Return a text that is equal for equal conversations. See :class:`durably.core.serialization.Digested`."""
        return self._digest
