"""The approvals that a run waits for, read from its trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from durably.cli.text import pretty_json
from durably.core import Trace
from durably.core.messages import AssistantMessage, ToolCall
from durably.core.trace_parts import TraceStep

__all__ = ["Pending", "pending_approvals"]


@dataclass(frozen=True)
class Pending:
    """A tool call that waits for a person.

    Attributes:
        approval: What the answer names.
        run_id: The run.
        function: The id of its function.
        step: The key of the step that waits.
        tool: The tool.
        arguments: What it would be called with, as JSON over several lines.
        since: Since when it waits, in seconds since 1970, or ``None``.
        until: Until when, or ``None``.
        why: What the model said along with the call.
    """

    approval: str
    run_id: str
    function: str
    step: str
    tool: str
    arguments: str
    since: float | None
    until: float | None
    why: str


def pending_approvals(trace: Trace) -> Iterator[Pending]:
    """The calls of a run that wait for a person now."""
    waiting = [step for step in trace.walk() if step.role == "approval" and step.status == "waiting"]
    if not waiting:
        return
    questions = {step.call_id: step for step in trace.walk() if step.step_id.startswith("request-")}
    said = {
        call.id: (call, message)
        for conversation in trace.conversations
        for message in conversation.messages
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
    }
    for step in waiting:
        question = questions.get(step.call_id)
        approval = _approval(question)
        if approval is not None:
            call, message = said.get(step.call_id or "", (None, None))
            yield Pending(
                approval=approval,
                run_id=trace.run_id,
                function=trace.function,
                step=step.key,
                tool=step.step_id.removeprefix("approve-"),
                arguments="{}" if call is None else _arguments(call),
                since=step.started_at,
                until=step.due,
                why="" if message is None else message.text,
            )


def _approval(question: TraceStep | None) -> str | None:
    """The name of the question, by which the answer finds its run."""
    if question is None or question.output is None:
        return None
    return str(json.loads(question.output.text)["approval"])


def _arguments(call: ToolCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else pretty_json(json.dumps(call.arguments))
