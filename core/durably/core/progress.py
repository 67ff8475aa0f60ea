"""What a run of an agent has come to so far: its turns, what it spent, and its last word."""

from __future__ import annotations

import json
from collections.abc import Iterable

from durably.core.agent_parts import AgentParts
from durably.core.budget import Budget
from durably.core.conversation import Conversation
from durably.core.messages import assistant
from durably.core.model import ModelResponse, Usage
from durably.core.output import OutputForm
from durably.core.result import AgentResult, AgentStopReason
from durably.core.spending import Spent
from durably.core.steps import StepAPI
from durably.core.tools import ToolOutcome

__all__ = ["Progress"]


class Progress:
    """What a result says of the turns so far, counted from recorded responses and outcomes alone.

    Args:
        conversation: What is said.
        spent: Where spending is counted.
    """

    def __init__(self, conversation: Conversation, spent: Spent) -> None:
        self._conversation = conversation
        self._text = ""
        self._output: object = None
        self._tool_calls = 0
        self._began: float | None = None
        self.iterations = 0
        self.pruned: int | None = None
        self.complaints = 0
        self.spent = spent
        self.last_turn = Usage()
        self._cache_breaks: list[int] = []

    async def check_time(self, agent: AgentParts, step: StepAPI, budget: Budget) -> None:
        """Read the clock in a step, if the budget is one of time."""
        if budget.time is not None:
            now = await step.run("check-time", agent.check_time)
            self._began = now if self._began is None else self._began
            self.spent.seconds = max(0.0, now - self._began)

    def count(self, response: ModelResponse, calls: int) -> None:
        """Count a turn with its answer, and the calls of tools in it."""
        self.iterations += 1
        if response.usage.cached_tokens < self.last_turn.cached_tokens + self.last_turn.cache_write_tokens:
            self._cache_breaks.append(self.iterations)
        self.last_turn = response.usage
        self.spent.add(response.usage, response.cost, calls)
        self._tool_calls += calls
        self._text = response.message.text or self._text

    def count_delegated(self, outcomes: Iterable[str | ToolOutcome]) -> None:
        """Count what agents spent that tools of a turn asked and waited for."""
        for outcome in outcomes:
            if isinstance(outcome, ToolOutcome) and outcome.usage is not None:
                self.spent.add(outcome.usage, outcome.cost, outcome.tool_calls)

    async def take(self, agent: AgentParts, step: StepAPI, response: ModelResponse) -> str | None:
        """Take the final answer; what is wrong with it, in words for the model, or ``None``."""
        output, complaint = self._read(agent.output_form, response)
        if complaint is None and agent.output_form is not None and agent.output_validator is not None:
            data = json.loads(agent.output_form.codec.encode(output, step="check-output"))
            complaint = await step.run("check-output", agent.check_output, data)
        self._output = output if complaint is None else None
        self.complaints += complaint is not None
        return complaint

    def _read(self, form: OutputForm | None, response: ModelResponse) -> tuple[object, str | None]:
        verdict = response.verdict
        if verdict is not None and verdict.complaint is not None:
            return None, verdict.complaint
        if form is None:
            return None, None
        if verdict is None:
            return form.read_old(response.message.text)
        return form.codec.rebuild(verdict.output), None

    def refused(self, reason: str) -> AgentResult:
        """The result of a run that a hook ends; its reason is the last word."""
        self._text = reason
        self._conversation.add(assistant(reason))
        return self.result("refused")

    def result(self, stop_reason: AgentStopReason) -> AgentResult:
        """The result of a run that ends now."""
        result = AgentResult(
            text=self._text,
            output=self._output,
            iterations=self.iterations,
            tool_calls=self._tool_calls,
            usage=self.spent.usage,
            cost=self.spent.cost,
            cache_breaks=self._cache_breaks,
            stop_reason=stop_reason,
        )
        return result.with_messages(self._conversation.said)
