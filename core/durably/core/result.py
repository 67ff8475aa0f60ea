"""What an agent is asked, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from durably.core.messages import ContentPart, Message
from durably.core.model import Usage

__all__ = ["AgentInput", "AgentResult", "AgentStopReason"]

AgentStopReason = Literal["completed", "max_iterations", "max_tokens", "budget", "refused"]
"""Why an agent ended: the model answered, its turns were used up, its last answer was cut off, its budget was spent, or
it declined."""


class AgentInput(BaseModel):
    """What an agent is asked.

    Args:
        message: The user's text, or text and files.
        session_key: The conversation it belongs to, for an agent with ``sessions``.
        depth: How many delegations led here; 0 for what did not come from another agent.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    message: str | list[ContentPart]
    session_key: str | None = None
    depth: int = Field(default=0, ge=0, exclude_if=lambda depth: not depth)


class AgentResult(BaseModel):
    """What an agent came to.

    Attributes:
        text: The model's last words.
        output: The answer as the agent's ``output_type``, or ``None`` for an agent without one.
        iterations: How many turns it took.
        tool_calls: How many tools the model called.
        usage: Tokens, summed over the recorded model calls, with those of agents it asked and waited for.
        cost: US dollars for the same, or ``None`` if the price of any call is not known.
        stop_reason: Why it ended.
    """

    model_config = ConfigDict(defer_build=True)

    text: str
    output: Any = None
    iterations: int
    tool_calls: int = 0
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None
    stop_reason: AgentStopReason = "completed"

    _messages: list[Message] | Callable[[], list[Message]] | None = PrivateAttr(default=None)

    @property
    def messages(self) -> list[Message]:
        """The conversation of this run, without the history it began with.

        A record does not hold it a second time: it is put together from the run's steps when first asked for.

        Raises:
            LookupError: If this result was part of another function's result.
        """
        if callable(self._messages):
            self._messages = self._messages()
        if self._messages is None:
            raise LookupError(
                "this result was read from another function's record, which does not repeat the conversation; return "
                "result.messages as well, or look at the run's history"
            )
        return self._messages

    def with_messages(self, messages: list[Message] | Callable[[], list[Message]]) -> AgentResult:
        """This result, with its conversation or what puts it together."""
        self._messages = messages
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AgentResult) and self.model_dump() == other.model_dump()
