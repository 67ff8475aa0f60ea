"""The agent loop: think, act, observe, until the model answers in text."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from durably.core.budget import Budget, Spent
from durably.core.compaction import Compaction
from durably.core.context import Logger
from durably.core.conversation import Conversation
from durably.core.error_text import writable
from durably.core.errors import ContextWindowExceededError, StepError
from durably.core.hooks import HookedParts, Refusal, after_model, after_tool, before_model, before_tool
from durably.core.ids import check_session_key
from durably.core.messages import (
    ContentPart,
    Message,
    SessionPrefix,
    ToolCall,
    ToolResultMessage,
    Transcript,
    UserMessage,
    assistant,
    user,
)
from durably.core.model import ModelResponse, Usage
from durably.core.model_steps import Later, ModelSteps, call_model
from durably.core.output import OutputForm
from durably.core.result import AgentResult, AgentStopReason
from durably.core.run_session import RunSession, SessionParts
from durably.core.steps import StepAPI
from durably.core.submission import Submission
from durably.core.tool_context import RunContext
from durably.core.tools import Tool, ToolOutcome
from durably.core.toolsets import ListedSpecs, ListedTools, Toolset, listed_tools

__all__ = ["AgentLoop", "AgentParts", "create_agent_loop"]

FEW_TURNS = 2
"""From this many turns left on, the model is told."""

AgentLoop = Callable[[StepAPI, Logger | None], Coroutine[Any, Any, AgentResult]]


class AgentParts(SessionParts, HookedParts, ModelSteps, Protocol):
    """What the loop needs of an agent. The methods are bodies of steps."""

    @property
    def tools(self) -> Mapping[str, Tool]: ...
    @property
    def toolsets(self) -> Sequence[Toolset]: ...
    @property
    def max_iterations(self) -> int: ...
    @property
    def output_form(self) -> OutputForm | None: ...
    @property
    def output_retries(self) -> int: ...
    @property
    def output_validator(self) -> Callable[[Any], Any] | None: ...
    async def check_output(self, output: Any) -> str | None: ...
    @property
    def budget(self) -> Budget | None: ...
    @property
    def compaction(self) -> Compaction | None: ...
    @property
    def asks_context(self) -> bool: ...
    def context_data(self, context: object) -> object: ...
    async def load_context(self, run: RunContext | None = None) -> str: ...
    async def load_history(self, session_key: str | None) -> SessionPrefix | list[Message]: ...
    async def check_time(self) -> float: ...
    @property
    def loads_options(self) -> bool: ...
    async def load_options(self, run: RunContext) -> dict[str, Any]: ...
    async def think(
        self,
        transcript: Transcript,
        turns_left: int | None,
        listed: ListedSpecs | None = None,
        options: dict[str, Any] | None = None,
    ) -> ModelResponse: ...
    async def fetch_answer(
        self, submitted: Submission, waited: float, turn: int, listed: ListedSpecs | None = None
    ) -> ModelResponse: ...
    async def give_up(self, submitted: Submission) -> None: ...
    async def summarize(self, older: Transcript, summary: str) -> ModelResponse: ...
    async def fetch_summary(self, submitted: Submission, waited: float) -> ModelResponse: ...
    async def give_up_summary(self, submitted: Submission) -> None: ...


def create_agent_loop(
    agent: AgentParts,
    message: str | list[ContentPart],
    *,
    session_key: str | None = None,
    context: object = None,
    depth: int = 0,
    budget: Budget | None = None,
    save: bool = False,
) -> AgentLoop:
    """The loop of one agent and one message, to be run by any function that has steps.

    Args:
        agent: The agent.
        message: What the user says.
        session_key: The conversation to go on with, for an agent with ``sessions``.
        context: Whom the agent works for, of its ``context_type``. See :class:`~durably.core.AgentInput`.
        depth: How many delegations led to this agent; delegates with a ``max_depth`` count on from there.
        budget: What it may spend at most, beside the agent's own budget.
        save: Whether the loop adds to the session what is said: the message when it begins, each turn that calls tools
            when its calls are known, and the rest at the end.

    Returns:
        ``async (step, logger) -> AgentResult``. It holds no state: called again on replay, it takes the same way.

    Raises:
        TypeError: If the session key is not a text.
        ValueError: If it is not 1 to 200 printable characters.
    """
    if session_key is not None:
        check_session_key(session_key)
    run = RunContext(agent.context_data(context), session_key, depth)
    limit = agent.budget if budget is None else budget.within(agent.budget)

    async def run_loop(step: StepAPI, logger: Logger | None) -> AgentResult:
        system = await _load_context(agent, step, run)
        tools = await listed_tools(step, agent.tools, agent.toolsets, run)
        history = await step.run("load-history", agent.load_history, session_key)
        conversation = Conversation(system, history, UserMessage(content=message))
        conversation.listed = tools.specs
        if agent.loads_options:
            conversation.options = await step.run("load-options", agent.load_options, run)
        session = RunSession(agent, step, session_key if save else None, history, conversation)
        answer = await session.answer_of_another()
        if answer is not None:
            return AgentResult(text=answer, iterations=0, cost=0.0, stop_reason="steered").with_messages([])
        await session.begin()
        result = await turns(step, logger, tools, conversation, session)
        await session.end(answered=result.stop_reason == "completed")
        return result

    async def turns(
        step: StepAPI, logger: Logger | None, tools: ListedTools, conversation: Conversation, session: RunSession
    ) -> AgentResult:
        progress = _Progress(conversation)
        for turns_left in range(agent.max_iterations, 0, -1):
            if limit:
                await progress.check_time(agent, step, limit)
                if limit.is_spent(progress.spent):
                    return progress.result("budget")
                conversation.transcript.spent = limit.warning(progress.spent)
            if progress.iterations:
                await session.take_messages()
            answer = await _think(agent, step, session, conversation, progress, turns_left)
            if isinstance(answer, Refusal):
                return progress.refused(answer.reason)
            response = answer
            calls = response.message.tool_calls
            progress.count(response, len(calls))
            if limit:
                limit.check_price(response)
            conversation.add(response.message)
            if calls:
                await session.save_turn()
                if logger:
                    logger.info("turn %d: %s", progress.iterations, ", ".join(call.name for call in calls))
                known = replace(run, budget=limit.left(progress.spent)) if limit else run
                outcomes = await _act(agent, tools, step, response, known)
                progress.count_delegated(outcomes)
                conversation.add(*(_result(*pair) for pair in zip(calls, outcomes, strict=True)))
            elif response.stop_reason == "pause":
                continue
            elif response.stop_reason == "refusal":
                return progress.result("refused")
            elif response.stop_reason == "max_tokens":
                return progress.result("max_tokens")
            elif (complaint := await progress.take(agent, step, response)) is None:
                return progress.result("completed")
            elif progress.complaints > agent.output_retries:
                return progress.result("invalid_output")
            else:
                conversation.add(user(complaint))
        return progress.result("max_iterations")

    return run_loop


async def _load_context(agent: AgentParts, step: StepAPI, run: RunContext) -> str:
    if agent.asks_context:
        return await step.run("load-context", agent.load_context, run)
    return await step.run("load-context", agent.load_context)


async def _think(
    agent: AgentParts,
    step: StepAPI,
    session: RunSession,
    conversation: Conversation,
    progress: _Progress,
    turns_left: int,
) -> ModelResponse | Refusal:
    """One answer of the model; on a conversation that is too long, after a summary of its older part."""
    few_turns = turns_left if turns_left <= FEW_TURNS else None
    if agent.compaction and agent.compaction.is_due(progress.last_turn):
        await _shorten(agent, step, session, conversation, progress)
    refusal = await before_model(agent, step, conversation.transcript)
    if refusal is not None:
        return refusal
    tries = 2 if _can_prune(agent, conversation) else 1
    while True:
        try:
            later = Later("fetch-answer", agent.fetch_answer, agent.give_up, conversation.known)
            response = await call_model(agent, step, "think", agent.think, *conversation.asked(few_turns), later=later)
            break
        except StepError as error:
            too_long = tries and error.error_type == ContextWindowExceededError.__name__
            if not (too_long and await _shorten(agent, step, session, conversation, progress)):
                raise
            tries -= 1
    answer = await after_model(agent, step, response)
    if isinstance(answer, Refusal):
        progress.spend(response.usage, response.cost)
    elif answer is not response and agent.output_form is not None:
        return agent.output_form.judged(answer)
    return answer


def _can_prune(agent: AgentParts, conversation: Conversation) -> bool:
    limits = agent.compaction
    return limits is not None and limits.prune and conversation.can_prune(limits.keep)


async def _shorten(
    agent: AgentParts, step: StepAPI, session: RunSession, conversation: Conversation, progress: _Progress
) -> bool:
    """Leave old results of tools out, or if that was of no use the turn before, have the older part summarised."""
    of_no_use = progress.pruned == progress.iterations - 1
    if agent.compaction is not None and _can_prune(agent, conversation) and not of_no_use:
        conversation.transcript.prune(agent.compaction.keep)
        progress.pruned = progress.iterations
        return True
    return await _compact(agent, step, session, conversation, progress)


async def _compact(
    agent: AgentParts, step: StepAPI, session: RunSession, conversation: Conversation, progress: _Progress
) -> bool:
    """Have the older part of the conversation summarised; ``False`` if there is none, or it is not wanted."""
    older = conversation.older(agent.compaction.keep) if agent.compaction else None
    if older is None or agent.compaction is None:
        return False
    later = Later("fetch-summary", agent.fetch_summary, agent.give_up_summary)
    response = await call_model(agent, step, "compact", agent.summarize, older, conversation.summary, later=later)
    progress.spend(response.usage, response.cost)
    if agent.compaction.save:
        await session.save_summary(response.message.text)
    conversation.compact(agent.compaction.keep, response.message.text)
    return True


async def _act(
    agent: AgentParts, tools: ListedTools, step: StepAPI, response: ModelResponse, run: RunContext
) -> tuple[str | ToolOutcome, ...]:
    """Answer the calls of one turn, concurrently if there are several; outcomes come in the order of the calls."""
    checked_in_step = response.checked_in_steps
    answers = [partial(_answer, agent, tools, step, call, run, checked_in_step) for call in response.message.tool_calls]
    if len(answers) == 1:
        return (await answers[0](),)
    return await step.gather(*answers)


def _result(call: ToolCall, outcome: str | ToolOutcome) -> ToolResultMessage:
    return (ToolOutcome(content=outcome) if isinstance(outcome, str) else outcome).message(call)


async def _answer(
    agent: AgentParts, tools: ListedTools, step: StepAPI, call: ToolCall, run: RunContext, checked_in_step: bool
) -> str | ToolOutcome:
    tool = tools.tools.get(call.name)
    if tool is None:
        known = ", ".join(tools.tools) or "none"
        return ToolOutcome(
            content=f"there is no tool {writable(repr(call.name))}; the tools are: {known}", is_error=True
        )
    if not agent.hooks:
        return await tool.answer(step, call, run, checked_in_step=checked_in_step)
    asked = await before_tool(agent, step, call)
    if isinstance(asked, Refusal):
        return ToolOutcome(content=asked.reason, is_error=True)
    outcome = await tool.answer(step, asked, run, checked_in_step=checked_in_step)
    return await after_tool(agent, step, asked, outcome)


class _Progress:
    """What a result says of the turns so far, counted from recorded responses and outcomes alone."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._text = ""
        self._output: object = None
        self._tool_calls = 0
        self._usage: list[Usage] = []
        self._began: float | None = None
        self.iterations = 0
        self.pruned: int | None = None
        self.complaints = 0
        self.spent = Spent()
        self.last_turn = Usage()
        self._cache_breaks: list[int] = []

    async def check_time(self, agent: AgentParts, step: StepAPI, budget: Budget) -> None:
        """Read the clock in a step, if the budget is one of time."""
        if budget.time is not None:
            now = await step.run("check-time", agent.check_time)
            self._began = now if self._began is None else self._began
            self.spent.seconds = max(0.0, now - self._began)

    def count(self, response: ModelResponse, calls: int) -> None:
        self.iterations += 1
        if response.usage.cached_tokens < self.last_turn.cached_tokens + self.last_turn.cache_write_tokens:
            self._cache_breaks.append(self.iterations)
        self.last_turn = response.usage
        self.spend(response.usage, response.cost)
        self._tool_calls += calls
        self.spent.tool_calls += calls
        self._text = response.message.text or self._text

    def count_delegated(self, outcomes: Iterable[str | ToolOutcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, ToolOutcome) and outcome.usage is not None:
                self.spend(outcome.usage, outcome.cost)
                self.spent.tool_calls += outcome.tool_calls

    def spend(self, usage: Usage, cost: float | None) -> None:
        self._usage.append(usage)
        before = self.spent.cost
        self.spent.tokens += usage.input_tokens + usage.output_tokens
        self.spent.cost = None if before is None or cost is None else before + cost

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
        result = AgentResult(
            text=self._text,
            output=self._output,
            iterations=self.iterations,
            tool_calls=self._tool_calls,
            usage=sum(self._usage, Usage()),
            cost=self.spent.cost,
            cache_breaks=self._cache_breaks,
            stop_reason=stop_reason,
        )
        return result.with_messages(self._conversation.said)
