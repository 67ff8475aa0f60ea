"""Approval: a person decides whether a tool may run. An event asks, the run waits durably, and an event answers.

Owns: the two events, and the steps that ask and wait. Does not own: showing the question to a person, which a function
with the trigger ``APPROVAL_REQUESTED`` does, and what is pending (``approval_desk.py``).

A run may wait for days, over restarts and on any engine, since only a record is held. The first answer counts. Later
ones change nothing, nor does an answer that comes after the time-out or after the run was cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from durably.core.durations import timeout_seconds
from durably.core.events import Event
from durably.core.ids import MAX_ID_LENGTH, derive_id
from durably.core.left_out import is_none
from durably.core.messages import JSONObject, ToolCall
from durably.core.steps import Duration, StepAPI, current_step

__all__ = [
    "APPROVAL_GIVEN",
    "APPROVAL_REQUESTED",
    "PLACE",
    "ApprovalDecision",
    "ApprovalQuestion",
    "ApprovalRequest",
    "Verdict",
    "approve",
    "decision_of",
    "name_question",
    "reject",
    "verdict_of",
    "wait_for_approval",
]

APPROVAL_REQUESTED = "durably/approval.requested"
"""The name of the event that asks. Its data is an :class:`ApprovalRequest`."""

APPROVAL_GIVEN = "durably/approval.given"
"""The name of the event that answers. Its data is an :class:`ApprovalDecision`."""

PLACE = "::"
"""What stands in the name of a question between its run and its step. No step key holds it."""


class ApprovalRequest(BaseModel):
    """A request for approval: the input of a function with the trigger :data:`APPROVAL_REQUESTED`.

    Attributes:
        approval: The id of the request. The answer has it too.
        run_id: The run that waits.
        tool: The tool to call.
        arguments: The arguments of the call.
        timeout: Seconds that the run waits for an answer, or ``None`` for no limit.
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
        needed: Whether a person must be asked at all about these arguments.
        tool: See :class:`ApprovalRequest`. Records of before have neither this nor what follows.
        arguments: See :class:`ApprovalRequest`.
        timeout: See :class:`ApprovalRequest`.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    approval: str
    run_id: str
    complaint: str | None = Field(default=None, exclude_if=is_none)
    needed: bool = Field(default=True, exclude_if=bool)
    tool: str | None = Field(default=None, exclude_if=is_none)
    arguments: JSONObject | None = Field(default=None, exclude_if=is_none)
    timeout: float | None = Field(default=None, exclude_if=is_none)


class ApprovalDecision(BaseModel):
    """The decision on a request for approval.

    Attributes:
        approval: The id of the request.
        approved: Whether the tool may run.
        reason: Why it may not, as a text for the model.
        by: Who decided, if known.
        at: When, in seconds since 1970, if known.
        arguments: What the tool is to be run with instead of what the model asked for, or ``None``.
        token: Distinguishes two answers to one request.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, strict=True)

    approval: str = Field(min_length=1)
    approved: bool
    reason: str = ""
    by: str | None = Field(default=None, exclude_if=is_none)
    at: float | None = Field(default=None, exclude_if=is_none)
    arguments: JSONObject | None = Field(default=None, exclude_if=is_none)
    token: str | None = Field(default=None, exclude_if=is_none)

    def to_event(self) -> Event:
        """Return the event that carries this answer. Of two events with one id, every engine drops the second."""
        readable = f"approval-{self.approval}"
        fits = len(readable) <= MAX_ID_LENGTH
        event_id = readable if fits else f"approval-{derive_id('approval', self.approval, '')}"
        return Event(APPROVAL_GIVEN, self.model_dump(), id=event_id)


def approve(approval: str, *, by: str | None = None, arguments: JSONObject | None = None) -> Event:
    """Return the event that lets a tool run: ``await backend.send(approve(request.approval))``.

    ``backend.approve`` does more: it validates the arguments, and raises if the approval is not pending.

    Args:
        approval: The ``approval`` of the :class:`ApprovalRequest`.
        by: Who decided.
        arguments: What the tool is to be run with instead of what the model asked for.
    """
    return ApprovalDecision(approval=approval, approved=True, by=by, arguments=arguments).to_event()


def reject(approval: str, reason: str = "", *, by: str | None = None) -> Event:
    """Return the event that refuses a tool call. See :func:`approve`.

    Args:
        approval: The ``approval`` of the :class:`ApprovalRequest`.
        reason: The reason, as a text for the model.
        by: Who decided.
    """
    return ApprovalDecision(approval=approval, approved=False, reason=reason, by=by).to_event()


def decision_of(answer: Event | None) -> ApprovalDecision | None:
    """Return the decision that an event gives, or ``None`` if there is none, or it cannot be read."""
    try:
        return None if answer is None else ApprovalDecision.model_validate(answer.data)
    except ValidationError:
        return None


def name_question(**said: Any) -> ApprovalQuestion:
    """Return the name of a question, for the body of ``request-<name>`` that checks the arguments.

    Args:
        said: What else there is to say of it. See :class:`ApprovalQuestion`.
    """
    info = current_step()
    return ApprovalQuestion(approval=f"{info.run_id}{PLACE}{info.key}", run_id=info.run_id, **said)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a question.

    Attributes:
        refusal: Why the call may not run, in words for the model, or ``None`` if it may.
        arguments: What the tool is to be run with instead, or ``None``.
    """

    refusal: str | None = None
    arguments: JSONObject | None = None


async def wait_for_approval(
    step: StepAPI, call: ToolCall, timeout: Duration | None, question: Callable[..., Any] | None = None, *args: Any
) -> Verdict:
    """Ask a person, and wait for the answer.

    Args:
        step: The steps of the run.
        call: The call to approve.
        timeout: Seconds, or a ``timedelta``, to wait. ``None`` waits for ever.
        question: A body that checks the call's arguments and names the question, so that the verdict is recorded
            before anybody is asked. ``None`` in runs of before, which have checked them already.
        args: The arguments of that body.
    """
    if question is None:
        asked = await step.run(f"request-{call.name}", _name_question)
    else:
        asked = await step.run(f"request-{call.name}", question, *args)
    if asked.complaint is not None or not asked.needed:
        return Verdict(refusal=asked.complaint)
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
    return verdict_of(call.name, answer)


async def _name_question() -> ApprovalQuestion:
    info = current_step()
    return ApprovalQuestion(approval=info.idempotency_key, run_id=info.run_id)


def verdict_of(tool: str, answer: Event | None) -> Verdict:
    """Return what came of a question.

    Args:
        tool: The tool's name.
        answer: The event that answered, or ``None`` if nobody did in time.
    """
    if answer is None:
        return Verdict(f"{tool} was not run: it needs a person's approval, and nobody answered in time")
    decision = decision_of(answer)
    if decision is None:
        return Verdict(f"{tool} was not run: it needs a person's approval, and the answer could not be read")
    if decision.approved:
        return Verdict(arguments=decision.arguments)
    return Verdict(f"{tool} was not run: a person refused it" + (f": {decision.reason}" if decision.reason else ""))
