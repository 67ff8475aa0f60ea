"""What a trace is made of: steps with their attempts, recorded values, and conversations.

Owns: the shape of the parts, and their JSON. Does not own: how they are read from records (``trace_steps.py``,
``trace_conversations.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from durably.core.conversation import Conversation
from durably.core.history import Kind
from durably.core.ids import step_id_of
from durably.core.messages import AssistantMessage, Message, SessionPrefix, ToolResultMessage, Transcript, UserMessage
from durably.core.model import Usage

__all__ = [
    "Attempt",
    "AttemptOutcome",
    "Payload",
    "StepRole",
    "StepStatus",
    "TraceConversation",
    "TraceEntry",
    "TraceStep",
]

AttemptOutcome = Literal["running", "completed", "failed", "lost"]
"""``lost``: the attempt began and no record says how it ended. A crash cut it off, or the engine keeps only the last
error, as Temporal does."""

StepStatus = Literal["running", "waiting", "retrying", "completed", "failed"]
"""Where a step stands. ``waiting``: for a time, an event or a child run. ``retrying``: its next attempt is due."""

StepRole = Literal["model", "tool", "approval", "child", "event", "wait", "step", "group"]
"""What a step is for: a model call, a tool's body, a person's answer, another run, events that are sent, a time or an
event that is waited for, any other body, or a ``gather`` and its branches."""


class _Part(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


def _empty(value: object) -> bool:
    return value in (None, [], 0, "")


class Payload(_Part):
    """A recorded value, as text.

    Attributes:
        text: JSON text, redacted as it was recorded. It is cut off where the trace has a limit.
        size: The number of characters of the whole text.
        is_digest: Whether only a digest of the value was recorded. ``text`` is the digest then.
    """

    text: str
    size: int
    is_digest: bool = Field(default=False, exclude_if=_empty)

    @property
    def is_cut(self) -> bool:
        """Whether ``text`` is not all of it."""
        return len(self.text) < self.size


class Attempt(_Part):
    """One execution of a body.

    Attributes:
        number: From 1.
        outcome: How it ended. See :data:`AttemptOutcome`.
        started_at: Seconds since 1970, or ``None`` if no record says so.
        ended_at: Seconds since 1970, or ``None``.
        error: Its error as JSON data, or ``None``.
        next_at: When the next attempt was due, in seconds since 1970, or ``None``.
    """

    number: int
    outcome: AttemptOutcome
    started_at: float | None = Field(default=None, exclude_if=_empty)
    ended_at: float | None = Field(default=None, exclude_if=_empty)
    error: dict[str, Any] | None = Field(default=None, exclude_if=_empty)
    next_at: float | None = Field(default=None, exclude_if=_empty)


class TraceStep(_Part):
    """One step, or a ``gather``, or one of its branches.

    Attributes:
        key: The step key. A branch has the prefix of its steps' keys without the slash, such as ``gather[0]``.
        kind: The kind of its records, or ``gather`` or ``branch``, which have no records of their own.
        role: What it is for. See :data:`StepRole`.
        status: Where it stands. See :data:`StepStatus`.
        name: The name of the function or the event it is about, or an empty text.
        started_at: Seconds since 1970, or ``None`` if no record says so.
        ended_at: Seconds since 1970, or ``None`` while it is not over.
        running: Seconds in which a body ran.
        waiting: Seconds between attempts, or of a sleep, a wait or a call of another function.
        due: What it waits for until, in seconds since 1970, or ``None``.
        attempts: Its attempts, if it has a body.
        input: Its arguments. Those of a tool are taken from the model's call, where only a digest was recorded.
        output: Its value.
        error: Its error as JSON data, or ``None``.
        usage: The tokens it spent, or ``None`` if it spent none.
        cost: US dollars for them, or ``None`` if the price is not known.
        model: The model that answered, or ``None``.
        stop_reason: Why the model stopped, or ``None``.
        tool_calls: The ids of the tool calls in the model's answer.
        call_id: The id of the tool call that it belongs to, or ``None``.
        child: The id of the run that it started, or ``None``.
        events: The ids of the events it sent, or of the one it received.
        steps: The branches of a ``gather``, or the steps of a branch.
    """

    key: str
    kind: Kind | Literal["gather", "branch"]
    role: StepRole
    status: StepStatus
    name: str = Field(default="", exclude_if=_empty)
    started_at: float | None = Field(default=None, exclude_if=_empty)
    ended_at: float | None = Field(default=None, exclude_if=_empty)
    running: float = Field(default=0.0, exclude_if=_empty)
    waiting: float = Field(default=0.0, exclude_if=_empty)
    due: float | None = Field(default=None, exclude_if=_empty)
    attempts: list[Attempt] = Field(default_factory=list, exclude_if=_empty)
    input: Payload | None = Field(default=None, exclude_if=_empty)
    output: Payload | None = Field(default=None, exclude_if=_empty)
    error: dict[str, Any] | None = Field(default=None, exclude_if=_empty)
    usage: Usage | None = Field(default=None, exclude_if=_empty)
    cost: float | None = Field(default=None, exclude_if=lambda cost: cost is None)
    model: str | None = Field(default=None, exclude_if=_empty)
    stop_reason: str | None = Field(default=None, exclude_if=_empty)
    tool_calls: list[str] = Field(default_factory=list, exclude_if=_empty)
    call_id: str | None = Field(default=None, exclude_if=_empty)
    child: str | None = Field(default=None, exclude_if=_empty)
    events: list[str] = Field(default_factory=list, exclude_if=_empty)
    steps: list[TraceStep] = Field(default_factory=list, exclude_if=_empty)

    @property
    def step_id(self) -> str:
        """The step id that the caller gave: the key without its branch and number."""
        return step_id_of(self.key)

    def walk(self) -> Iterator[TraceStep]:
        """Yield this step and all below it, each before those inside it."""
        yield self
        for step in self.steps:
            yield from step.walk()


class TraceEntry(_Part):
    """One message of a conversation, or the place where a summary replaced the older ones in the model's view.

    Attributes:
        step: The key of the step that said it: a model call, a tool, or ``compact``. Empty for what the user said.
        message: The message, or ``None`` where a summary stands.
        summary: The summary, or ``None`` where a message stands.
        keep: How many of the newest messages stayed with the summary.
        recorded: Whether the records hold its text. They do not hold what the code itself made up, such as a complaint
            about a call's arguments.
    """

    step: str = Field(default="", exclude_if=_empty)
    message: Message | None = None
    summary: str | None = Field(default=None, exclude_if=_empty)
    keep: int = Field(default=0, exclude_if=_empty)
    recorded: bool = Field(default=True, exclude_if=lambda recorded: recorded)


class TraceConversation(_Part):
    """The conversation of one agent loop, put together from the steps of its run.

    Attributes:
        scope: What the keys of its steps begin with; empty for a loop that stands in no branch.
        system: The system prompt.
        history: The messages before this run, or how far it read its session: the records do not hold those messages.
        entries: What was said in this run, in order.
        exact: Whether every model call was given exactly these messages: their digests are the recorded ones.
    """

    scope: str = Field(default="", exclude_if=_empty)
    system: str = ""
    history: list[Message] | SessionPrefix = Field(default_factory=list, exclude_if=_empty)
    entries: list[TraceEntry] = Field(default_factory=list)
    exact: bool = True

    @property
    def messages(self) -> list[Message]:
        """The messages of this run, without the history that it began with: those of ``AgentResult.messages``."""
        return [entry.message for entry in self.entries if entry.message is not None]

    def seen_by(self, key: str) -> Transcript:
        """Return what the model saw in the step ``key``.

        Raises:
            LookupError: If no entry of this conversation is of that step.
        """
        conversation: Conversation | None = None
        for entry in self.entries:
            if entry.step == key and isinstance(entry.message, AssistantMessage):
                break
            if conversation is None:
                if isinstance(entry.message, UserMessage):
                    conversation = Conversation(self.system, self.history, entry.message)
            elif entry.message is not None:
                conversation.add(entry.message)
            else:
                conversation.compact(entry.keep, entry.summary or "")
        else:
            raise LookupError(f"no model call of this conversation is step {key!r}")
        if conversation is not None:
            return conversation.transcript
        if isinstance(self.history, SessionPrefix):
            return Transcript(self.system, before=self.history)
        return Transcript(self.system, self.history)

    def results(self) -> dict[str, ToolResultMessage]:
        """Return what the tools answered, by the id of the call."""
        return {message.call_id: message for message in self.messages if isinstance(message, ToolResultMessage)}
