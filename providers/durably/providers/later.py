"""Answers that a provider makes later: what their submission is to the agent, and the headers it is sent with.

Owns: how long a run waits before it asks. Does not own: submitting and asking, which each provider does by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably.core import current_step
from durably.core.messages import AssistantMessage
from durably.core.model import ModelResponse
from durably.core.submission import Submission

__all__ = ["batched", "in_background", "pending", "submission_key", "with_key"]


def in_background(response_id: str) -> Submission:
    """Return what is known of an answer that is made in the background: it takes seconds to minutes."""
    return Submission(id=response_id, kind="background", wait=2.0, longest=30.0)


def batched(batch_id: str) -> Submission:
    """Return what is known of a batch: most take less than an hour, and none more than a day."""
    return Submission(id=batch_id, kind="batch", wait=30.0, longest=600.0)


def pending(submitted: Submission, *, origin: str) -> ModelResponse:
    """Return the response that promises an answer."""
    return ModelResponse(message=AssistantMessage(parts=[], provider=origin), submitted=submitted)


def submission_key() -> str:
    """Return a name for a submission: the idempotency key of the step that makes it, if there is one.

    It is the same for every attempt of the step.
    """
    try:
        return current_step().idempotency_key
    except RuntimeError:
        return "outside-of-a-step"


def with_key(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return headers by which a provider that knows them takes a submission once, however often it is sent."""
    return {"Idempotency-Key": submission_key(), **(headers or {})}
