"""The steps of one model call: the call, and, where the provider answers later, waiting and asking until it has.

Owns: their order, and when a request is submitted again. Does not own: the bodies (``agent.py``,
``submission_bodies.py``), and what a model is asked (``loop.py``).

A call that is answered at once is one step. What follows another one is decided by its record alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from durably.core.errors import AnswerFailedError, StepError
from durably.core.model import ModelResponse
from durably.core.steps import StepAPI
from durably.core.submission import Submission

__all__ = ["Later", "ModelSteps", "call_model"]

Body = Callable[..., Awaitable[ModelResponse]]


class Later(NamedTuple):
    """What is done about an answer that comes later.

    Attributes:
        step_id: The step that asks whether it is there.
        body: Its body. It takes the submission and the seconds that the run has waited for the answer.
        give_up: What calls off a submission, if its run is cancelled.
        args: The body's further arguments.
    """

    step_id: str
    body: Body
    give_up: Callable[[Submission], Awaitable[None]]
    args: tuple[Any, ...] = ()


class ModelSteps(Protocol):
    """What model calls need of an agent."""

    @property
    def retries(self) -> int: ...
    @property
    def model_timeout(self) -> float | None: ...


async def call_model(
    agent: ModelSteps, step: StepAPI, step_id: str, body: Body, *args: Any, later: Later
) -> ModelResponse:
    """Have a model answer, now or later.

    Args:
        agent: The agent.
        step: The steps of the run.
        step_id: The step that asks.
        body: Its body.
        args: Its arguments.
        later: What is done if the answer comes later.

    Raises:
        StepError: If the model failed for good.
    """
    failures = 0
    while True:
        try:
            response = await step.run(step_id, body, *args, timeout=agent.model_timeout)
            if response.submitted is None:
                return response
            return await _answer(agent, step, response.submitted, later)
        except StepError as error:
            # The provider has failed at what it had taken, and says so: only then is the request submitted again.
            if error.error_type != AnswerFailedError.__name__ or failures == agent.retries:
                raise
            failures += 1


async def _answer(agent: ModelSteps, step: StepAPI, submitted: Submission, later: Later) -> ModelResponse:
    """Wait and ask until a provider has answered what was submitted."""
    waited, asked = 0.0, 0
    timeout = agent.model_timeout
    with step.if_cancelled(later.give_up, submitted):
        while True:
            delay = submitted.delay(asked)
            await step.sleep("wait-answer", delay)
            waited, asked = waited + delay, asked + 1
            response = await step.run(later.step_id, later.body, submitted, waited, *later.args, timeout=timeout)
            if response.submitted is None:
                return response
