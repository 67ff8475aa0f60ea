"""The agent loop: think, act, observe, until the model answers in text."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from durably.core.answers import judge
from durably.core.budget import Budget
from durably.core.compaction import Compaction
from durably.core.context import Logger
from durably.core.conversation import Conversation
from durably.core.error_text import writable
from durably.core.errors import ContextWindowExceededError, StepError
from durably.core.ids import check_session_key
from durably.core.messages import (
    ContentPart,
    Message,
    SessionPrefix,
    ToolCall,
    ToolResultMessage,
    Transcript,
    UserMessage,
    user,
)
from durably.core.model import ModelResponse, Usage
from durably.core.result import AgentResult, AgentStopReason
from durably.core.serialization import Codec
from durably.core.steps import StepAPI
from durably.core.tool_context import RunContext
from durably.core.tools import Tool, ToolOutcome

__all__ = ["AgentLoop", "AgentParts", "create_agent_loop"]

FEW_TURNS = 2
"""From this many turns left on, the model is told."""

AgentLoop = Callable[[StepAPI, Logger | None], Coroutine[Any, Any, AgentResult]]


class AgentParts(Protocol):
    """What the loop needs of an agent. The methods are bodies of steps."""

    @property
    def tools(self) -> Mapping[str, Tool]: ...
    @property
    def max_iterations(self) -> int: ...
    @property
    def model_timeout(self) -> float | None: ...
    @property
    def output_codec(self) -> Codec | None: ...
    @property
    def budget(self) -> Budget | None: ...
    @property
    def compaction(self) -> Compaction | None: ...
    @property
    def asks_context(self) -> bool: ...
    def context_data(self, context: object) -> object: ...
    async def load_context(self, run: RunContext | None = None) -> str: ...
    @property
    def save_turns(self) -> bool: ...
    async def load_history(self, session_key: str | None) -> SessionPrefix | list[Message]: ...
    async def save(self, session_key: str, messages: Sequence[Message]) -> None: ...
    @property
    def loads_options(self) -> bool: ...
    async def load_options(self, run: RunContext) -> dict[str, Any]: ...
    async def think(
        self, transcript: Transcript, turns_left: int | None, options: dict[str, Any] | None = None
    ) -> ModelResponse: ...
    async def summarize(self, older: Transcript, summary: str) -> ModelResponse: ...


def create_agent_loop(
    agent: AgentParts,
    message: str | list[ContentPart],
    *,
    session_key: str | None = None,
    context: object = None,
    depth: int = 0,
    save: bool = False,
) -> AgentLoop:
    """The loop of one agent and one message, to be run by any function that has steps.

    Args:
        agent: The agent.
        message: What the user says.
        session_key: The conversation to go on with, for an agent with ``sessions``.
        context: Whom the agent works for, of its ``context_type``. See :class:`~durably.core.AgentInput`.
        depth: How many delegations led to this agent; delegates with a ``max_depth`` count on from there.
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

    async def run_loop(step: StepAPI, logger: Logger | None) -> AgentResult:
        system = await _load_context(agent, step, run)
        history = await step.run("load-history", agent.load_history, session_key)
        conversation = Conversation(system, history, UserMessage(content=message))
        if agent.loads_options:
            conversation.options = await step.run("load-options", agent.load_options, run)
        session = _Session(agent, step, session_key if save else None, conversation)
        # A run that began when its history was recorded as messages goes on as it began: it saves all at its end.
        as_it_comes = isinstance(history, SessionPrefix)
        if as_it_comes:
            await session.save("save-message")
        result = await turns(step, logger, conversation, session if as_it_comes and agent.save_turns else None)
        await session.save("save-session")
        return result

    async def turns(
        step: StepAPI, logger: Logger | None, conversation: Conversation, session: _Session | None
    ) -> AgentResult:
        progress = _Progress(conversation)
        for turns_left in range(agent.max_iterations, 0, -1):
            if agent.budget and agent.budget.is_spent(progress.tokens, progress.cost):
                return progress.result("budget")
            response = await _think(agent, step, conversation, progress, turns_left)
            calls = response.message.tool_calls
            progress.count(response, len(calls))
            if agent.budget:
                agent.budget.check_price(response)
            conversation.add(response.message)
            if calls:
                if session is not None:
                    await session.save("save-turn")
                if logger:
                    logger.info("turn %d: %s", progress.iterations, ", ".join(call.name for call in calls))
                outcomes = await _act(agent, step, response, run)
                progress.count_delegated(outcomes)
                conversation.add(*(_result(*pair) for pair in zip(calls, outcomes, strict=True)))
            elif response.stop_reason == "pause":
                continue
            elif response.stop_reason == "refusal":
                return progress.result("refused")
            elif response.stop_reason == "max_tokens":
                return progress.result("max_tokens")
            elif (complaint := progress.take(agent.output_codec, response)) is None:
                return progress.result("completed")
            else:
                conversation.add(user(complaint))
        return progress.result("max_iterations")

    return run_loop


async def _load_context(agent: AgentParts, step: StepAPI, run: RunContext) -> str:
    if agent.asks_context:
        return await step.run("load-context", agent.load_context, run)
    return await step.run("load-context", agent.load_context)


class _Session:
    """What of a run stands in its session already.

    Args:
        agent: Writes to it.
        step: Runs that as a step.
        key: The session, or ``None`` to save nothing.
        conversation: What is said.
    """

    def __init__(self, agent: AgentParts, step: StepAPI, key: str | None, conversation: Conversation) -> None:
        self._agent = agent
        self._step = step
        self._key = key
        self._conversation = conversation
        self._saved = 0

    async def save(self, step_id: str) -> None:
        """Add what was said since the last time."""
        said = self._conversation.said[self._saved :]
        if self._key is not None and said:
            await self._step.run(step_id, self._agent.save, self._key, said)
            self._saved += len(said)


async def _think(
    agent: AgentParts, step: StepAPI, conversation: Conversation, progress: _Progress, turns_left: int
) -> ModelResponse:
    """One answer of the model; on a conversation that is too long, after a summary of its older part."""
    hint = turns_left if turns_left <= FEW_TURNS else None
    if agent.compaction and agent.compaction.is_due(progress.last_turn):
        await _compact(agent, step, conversation, progress)
    try:
        return await _ask(agent, step, conversation, hint)
    except StepError as error:
        too_long = error.error_type == ContextWindowExceededError.__name__
        if not (too_long and await _compact(agent, step, conversation, progress)):
            raise
    return await _ask(agent, step, conversation, hint)


async def _ask(agent: AgentParts, step: StepAPI, conversation: Conversation, hint: int | None) -> ModelResponse:
    transcript, options = conversation.transcript, conversation.options
    if options is None:
        return await step.run("think", agent.think, transcript, hint, timeout=agent.model_timeout)
    return await step.run("think", agent.think, transcript, hint, options, timeout=agent.model_timeout)


async def _compact(agent: AgentParts, step: StepAPI, conversation: Conversation, progress: _Progress) -> bool:
    """Have the older part of the conversation summarised; ``False`` if there is none, or it is not wanted."""
    older = conversation.older(agent.compaction.keep) if agent.compaction else None
    if older is None or agent.compaction is None:
        return False
    response = await step.run("compact", agent.summarize, older, conversation.summary, timeout=agent.model_timeout)
    progress.spend(response.usage, response.cost)
    conversation.compact(agent.compaction.keep, response.message.text)
    return True


async def _act(
    agent: AgentParts, step: StepAPI, response: ModelResponse, run: RunContext
) -> tuple[str | ToolOutcome, ...]:
    """Answer the calls of one turn, concurrently if there are several; outcomes come in the order of the calls."""
    answers = [
        partial(_answer, agent, step, call, run, response.checked_in_steps) for call in response.message.tool_calls
    ]
    if len(answers) == 1:
        return (await answers[0](),)
    return await step.gather(*answers)


def _result(call: ToolCall, outcome: str | ToolOutcome) -> ToolResultMessage:
    if isinstance(outcome, str):
        return ToolResultMessage(call_id=call.id, name=call.name, content=outcome)
    return ToolResultMessage(call_id=call.id, name=call.name, content=outcome.content, is_error=outcome.is_error)


async def _answer(
    agent: AgentParts, step: StepAPI, call: ToolCall, run: RunContext, checked_in_step: bool
) -> str | ToolOutcome:
    tool = agent.tools.get(call.name)
    if tool is None:
        known = ", ".join(agent.tools) or "none"
        return ToolOutcome(
            content=f"there is no tool {writable(repr(call.name))}; the tools are: {known}", is_error=True
        )
    return await tool.answer(step, call, run, checked_in_step=checked_in_step)


class _Progress:
    """What a result says of the turns so far, counted from recorded responses and outcomes alone."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._text = ""
        self._output: object = None
        self._tool_calls = 0
        self._usage: list[Usage] = []
        self.iterations = 0
        self.tokens = 0
        self.cost: float | None = 0.0
        self.last_turn = Usage()
        self._cache_breaks: list[int] = []

    def count(self, response: ModelResponse, calls: int) -> None:
        self.iterations += 1
        if response.usage.cached_tokens < self.last_turn.cached_tokens + self.last_turn.cache_write_tokens:
            self._cache_breaks.append(self.iterations)
        self.last_turn = response.usage
        self.spend(response.usage, response.cost)
        self._tool_calls += calls
        self._text = response.message.text or self._text

    def count_delegated(self, outcomes: Iterable[str | ToolOutcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, ToolOutcome) and outcome.usage is not None:
                self.spend(outcome.usage, outcome.cost)

    def spend(self, usage: Usage, cost: float | None) -> None:
        self._usage.append(usage)
        self.tokens += usage.input_tokens + usage.output_tokens
        self.cost = None if self.cost is None or cost is None else self.cost + cost

    def take(self, codec: Codec | None, response: ModelResponse) -> str | None:
        """Take the final answer; what is wrong with it, in words for the model, or ``None``."""
        if response.verdict is not None and response.verdict.complaint is not None:
            return response.verdict.complaint
        if codec is None:
            return None
        if response.verdict is not None:
            self._output = codec.rebuild(response.verdict.output)
            return None
        self._output, complaint = judge(codec, response.message.text)  # a record of before has no verdict
        return complaint

    def result(self, stop_reason: AgentStopReason) -> AgentResult:
        result = AgentResult(
            text=self._text,
            output=self._output,
            iterations=self.iterations,
            tool_calls=self._tool_calls,
            usage=sum(self._usage, Usage()),
            cost=self.cost,
            cache_breaks=self._cache_breaks,
            stop_reason=stop_reason,
        )
        return result.with_messages(self._conversation.said)
