"""The input and the result of an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from typing_extensions import TypeVar

from durably.core.budget import Budget
from durably.core.ids import check_session_key
from durably.core.left_out import is_falsy, is_none
from durably.core.messages import ContentPart, Message
from durably.core.model import Usage

__all__ = ["AgentInput", "AgentResult", "AgentStopReason"]

AgentStopReason = Literal["completed", "max_iterations", "max_tokens", "budget", "refused", "steered", "invalid_output"]
"""Why an agent ended.

``completed``: the model answered. ``max_iterations``: its turns were used up. ``max_tokens``: its last answer was cut
off. ``budget``: its budget was spent. ``refused``: the model declined. ``steered``: another run of the session took up
its message, and answered it. ``invalid_output``: none of its answers fitted the ``output_type``.
"""


C = TypeVar("C", default=Any)
Out = TypeVar("Out", default=Any)


class AgentInput(BaseModel, Generic[C]):
    """The input of an agent. A plain string stands for one with that message.

    Args:
        message: The user's text, or a list of text and files.
        session_key: The session of the run, for an agent with ``sessions``: 1 to 200 printable characters.
        context: The user or tenant of the run, for tools and instructions: a value of the agent's ``context_type``. It
            is recorded with the input. The model does not see it.
        depth: How many delegations led here. It is 0 unless another agent asks.
        budget: What the run may spend at most, beside the agent's own budget; another agent that asks may say so.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    message: str | list[ContentPart]
    session_key: str | None = None
    context: C | None = Field(default=None, exclude_if=is_none)
    depth: int = Field(default=0, ge=0, exclude_if=is_falsy)
    budget: Budget | None = Field(default=None, exclude_if=is_none)

    @field_validator("session_key")
    @classmethod
    def _check_session_key(cls, session_key: str | None) -> str | None:
        if session_key is not None:
            check_session_key(session_key)
        return session_key


class AgentResult(BaseModel, Generic[Out]):
    """The result of an agent.

    Attributes:
        text: The model's last text.
        output: The answer as the agent's ``output_type``; ``None`` for an agent without one, and for a run that ended
            early.
        iterations: How many turns it took.
        tool_calls: How many calls of tools the model made.
        usage: The tokens of the recorded model calls. Those of sub-agents that it waited for are included.
        cost: US dollars for these tokens, or ``None`` if the price of any call is not known.
        cache_breaks: The turns, from 1, that read less from the provider's prompt cache than expected: the beginning of
            the conversation had changed, or the provider had dropped it. ``usage.cached_tokens`` is the total that was
            read.
        stop_reason: Why it ended. See :data:`AgentStopReason`.
    """

    model_config = ConfigDict(defer_build=True)

    text: str
    output: Out | None = None
    iterations: int
    tool_calls: int = 0
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None
    cache_breaks: list[int] = Field(default_factory=list, exclude_if=is_falsy)
    stop_reason: AgentStopReason = "completed"

    _messages: list[Message] | Callable[[], list[Message]] | None = PrivateAttr(default=None)

    @property
    def messages(self) -> list[Message]:
        """The messages of this run, without the history that it began with.

        They are rebuilt from the run's steps at the first access, because no record repeats them.

        Raises:
            LookupError: If this result was read from another function's record.
        """
        if callable(self._messages):
            self._messages = self._messages()
        if self._messages is None:
            raise LookupError(
                "this result was read from another function's record, which does not repeat the conversation; return "
                "result.messages as well, or look at the run's history"
            )
        return self._messages

    def with_messages(self, messages: list[Message] | Callable[[], list[Message]]) -> Self:
        """Set the conversation, or a function that puts it together, and return this result."""
        self._messages = messages
        return self

    # pydantic would also compare the conversation, which may not be put together yet.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, AgentResult) and self.model_dump() == other.model_dump()
