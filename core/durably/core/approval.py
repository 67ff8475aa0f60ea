"""Approval: a person decides whether a tool may run. An event asks, the run waits durably, and an event answers.

Owns: the two events, and the steps that ask and wait. Does not own: showing the question to a person, which a function
with the trigger ``APPROVAL_REQUESTED`` does.

A run may wait for days, over restarts and on any engine, since only a record is held. The first answer counts. Later
ones change nothing, nor does an answer that comes after the time-out or after the run was cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from durably.core.durations import timeout_seconds
from durably.core.events import Event
from durably.core.messages import JSONObject, ToolCall
from durably.core.steps import Duration, StepAPI, current_step

__all__ = [
    "APPROVAL_GIVEN",
    "APPROVAL_REQUESTED",
    "ApprovalQuestion",
    "ApprovalRequest",
    "approve",
    "name_question",
    "refusal",
    "reject",
    "wait_for_approval",
]

APPROVAL_REQUESTED = "durably/approval.requested"
"""The name of the event that asks. Its data is an :class:`ApprovalRequest`."""

APPROVAL_GIVEN = "durably/approval.given"
"""The name of the event that answers. :func:`approve` and :func:`reject` make such an event."""


class ApprovalRequest(BaseModel):
    """The question to a person: the input of a function with the trigger :data:`APPROVAL_REQUESTED`.

    Attributes:
        approval: Identifies the question. The answer carries it.
        run_id: The run that waits.
        tool: The tool that it wants to call.
        arguments: The arguments of the call.
        timeout: Seconds that the run waits for an answer, or ``None`` if it waits for ever.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    approval: str
    run_id: str
    tool: str
    arguments: JSONObject
    timeout: float | None = None


class ApprovalQuestion(BaseModel):
    """The name of a question, as the step ``request-<name>`` records it, or why it is not asked.

    Attributes:
        approval: See :class:`ApprovalRequest`.
        run_id: See :class:`ApprovalRequest`.
        complaint: What is wrong with the call's arguments, or ``None``. Nobody is asked about such a call.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    approval: str
    run_id: str
    complaint: str | None = Field(default=None, exclude_if=lambda complaint: complaint is None)


class _Decision(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, strict=True)

    approval: str = Field(min_length=1)
    approved: bool
    reason: str = ""


def approve(approval: str) -> Event:
    """Return the event that lets a tool run: ``await backend.send(approve(request.approval))``.

    Args:
        approval: The ``approval`` of the :class:`ApprovalRequest`.
    """
    return _answer(_Decision(approval=approval, approved=True))


def reject(approval: str, reason: str = "") -> Event:
    """Return the event that refuses a tool call.

    Args:
        approval: The ``approval`` of the :class:`ApprovalRequest`.
        reason: The reason that the model is told.
    """
    return _answer(_Decision(approval=approval, approved=False, reason=reason))


def _answer(decision: _Decision) -> Event:
    # Every engine drops an event whose id it has seen. Without this id, whoever listens to answers would get each one.
    return Event(APPROVAL_GIVEN, decision.model_dump(), id=f"approval-{decision.approval}")


def name_question(complaint: str | None = None) -> ApprovalQuestion:
    """Return the name of a question: the body of ``request-<name>``, or the end of one that checks the arguments.

    Args:
        complaint: What is wrong with the call's arguments, or ``None``.
    """
    info = current_step()
    return ApprovalQuestion(approval=info.idempotency_key, run_id=info.run_id, complaint=complaint)


async def wait_for_approval(
    step: StepAPI, call: ToolCall, timeout: Duration | None, question: Callable[[Any], ApprovalQuestion] | None = None
) -> str | None:
    """Ask a person, and wait for the answer.

    Args:
        step: The steps of the run.
        call: The call to approve.
        timeout: Seconds, or a ``timedelta``, to wait. ``None`` waits for ever.
        question: A body that checks the call's arguments and names the question, so that the verdict is recorded
            before anybody is asked. ``None`` if the arguments are known to be valid.

    Returns:
        ``None`` if the call may run, or else the reason why not, in words for the model.
    """
    if question is None:
        asked = await step.run(f"request-{call.name}", _name_question)
    else:
        asked = await step.run(f"request-{call.name}", question, call.arguments)
    if asked.complaint is not None:
        return asked.complaint
    request = ApprovalRequest(
        approval=asked.approval,
        run_id=asked.run_id,
        tool=call.name,
        arguments=call.arguments if isinstance(call.arguments, dict) else {},
        timeout=timeout_seconds(timeout, f"tool {call.name!r}: approval_timeout"),
    )
    # The wait is registered beside the question, not after it: an answer that came in between would be missed.
    answer, _ = await step.gather(
        partial(
            step.wait_for_event,
            f"approve-{call.name}",
            APPROVAL_GIVEN,
            match={"approval": request.approval},
            timeout=timeout,
        ),
        partial(step.send_event, f"ask-{call.name}", Event(APPROVAL_REQUESTED, request.model_dump(mode="json"))),
    )
    return refusal(call.name, answer)


async def _name_question() -> ApprovalQuestion:
    return name_question()


def refusal(tool: str, answer: Event | None) -> str | None:
    """Return why a tool may not run, in words for the model, or ``None`` if the answer allows it.

    Args:
        tool: The tool's name.
        answer: The event that answered, or ``None`` if nobody did in time.
    """
    if answer is None:
        return f"{tool} was not run: it needs a person's approval, and nobody answered in time"
    try:
        decision = _Decision.model_validate(answer.data)
    except ValidationError:
        return f"{tool} was not run: it needs a person's approval, and the answer could not be read"
    if decision.approved:
        return None
    return f"{tool} was not run: a person refused it" + (f": {decision.reason}" if decision.reason else "")
