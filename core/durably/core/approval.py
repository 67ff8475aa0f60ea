"""A person's yes or no before a tool runs: asked by an event, waited for durably, answered by an event.

A run may wait for days, over restarts and on any engine: nothing is held but a record. Of several answers the first
counts; one that comes after the time is up, or after the run was cancelled, changes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from durably.core.attempts import seconds
from durably.core.events import Event
from durably.core.messages import ToolCall
from durably.core.steps import Duration, StepAPI, current_step

__all__ = ["APPROVAL_GIVEN", "APPROVAL_REQUESTED", "ApprovalRequest", "approve", "reject", "wait_for_approval"]

APPROVAL_REQUESTED = "durably/approval.requested"
"""The event that asks; its data is an :class:`ApprovalRequest`."""

APPROVAL_GIVEN = "durably/approval.given"
"""The event that answers. Made by :func:`approve` and :func:`reject`."""


class ApprovalRequest(BaseModel):
    """What a person is asked. The input of a function with the trigger :data:`APPROVAL_REQUESTED`.

    Attributes:
        approval: Names the question; the answer carries it.
        run_id: The run that waits.
        tool: The tool it wants to use.
        arguments: With what.
        timeout: Seconds it waits for an answer, or ``None``.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    approval: str
    run_id: str
    tool: str
    arguments: dict[str, Any]
    timeout: float | None = None


class _Asked(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True)

    approval: str
    run_id: str


class _Decision(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, strict=True)

    approval: str = Field(min_length=1)
    approved: bool
    reason: str = ""


def approve(approval: str) -> Event:
    """The event that lets a tool run: ``await backend.send(approve(request.approval))``.

    Args:
        approval: From the :class:`ApprovalRequest`.
    """
    return _answer(_Decision(approval=approval, approved=True))


def reject(approval: str, reason: str = "") -> Event:
    """The event that forbids a tool call.

    Args:
        approval: From the :class:`ApprovalRequest`.
        reason: What the model is told.
    """
    return _answer(_Decision(approval=approval, approved=False, reason=reason))


def _answer(decision: _Decision) -> Event:
    # The id makes a second answer to one question a repetition of the first, which every engine drops.
    return Event(APPROVAL_GIVEN, decision.model_dump(), id=f"approval-{decision.approval}")


async def wait_for_approval(step: StepAPI, call: ToolCall, timeout: Duration | None) -> str | None:
    """Ask, and wait for the answer.

    Args:
        step: The steps of the run.
        call: What is to be approved; its arguments are valid.
        timeout: How long to wait; left out, for ever.

    Returns:
        ``None`` if the call may run; else why not, in words for the model.
    """
    asked = await step.run(f"request-{call.name}", _name_question)
    request = ApprovalRequest(
        approval=asked.approval,
        run_id=asked.run_id,
        tool=call.name,
        arguments=call.arguments if isinstance(call.arguments, dict) else {},
        timeout=seconds(timeout),
    )
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
    return _refusal(call.name, answer)


async def _name_question() -> _Asked:
    info = current_step()
    return _Asked(approval=info.idempotency_key, run_id=info.run_id)


def _refusal(tool: str, answer: Event | None) -> str | None:
    if answer is None:
        return f"{tool} was not run: it needs a person's approval, and nobody answered in time"
    try:
        decision = _Decision.model_validate(answer.data)
    except ValidationError:
        return f"{tool} was not run: it needs a person's approval, and the answer could not be read"
    if decision.approved:
        return None
    return f"{tool} was not run: a person refused it" + (f": {decision.reason}" if decision.reason else "")
