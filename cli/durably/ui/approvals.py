"""What waits for a person, as the page shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from durably.core import Trace
from durably.core.approval_desk import PendingApproval
from durably.core.messages import AssistantMessage

__all__ = ["Question", "changed_arguments", "question"]


@dataclass(frozen=True)
class Question:
    """A tool call that waits for a person.

    Attributes:
        asked: The question.
        arguments: What the tool would be called with, as JSON over several lines.
        why: What the model said along with the call.
    """

    asked: PendingApproval
    arguments: str
    why: str


def question(asked: PendingApproval, trace: Trace) -> Question:
    """A question, with what the run's trace knows of it."""
    call_id = trace.step(asked.step).call_id
    said = [
        message.text
        for conversation in trace.conversations
        for message in conversation.messages
        if isinstance(message, AssistantMessage) and any(call.id == call_id for call in message.tool_calls)
    ]
    return Question(asked, json.dumps(asked.arguments, ensure_ascii=False, indent=2), said[-1] if said else "")


def changed_arguments(shown: str, text: str) -> Any:
    """The arguments that a person wrote, or ``None`` if they are those that were shown.

    Raises:
        ValueError: If they are not a JSON object.
    """
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError("the arguments of a tool are one JSON object")  # noqa: TRY004  # it is not a mistake of ours
    return None if given == json.loads(shown) else given
