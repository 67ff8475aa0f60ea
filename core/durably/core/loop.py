"""The agent loop: think, act, observe, until the model answers in text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from durably.core.agent_parts import AgentParts
from durably.core.budget import Budget
from durably.core.context import Logger
from durably.core.conversation import Conversation
from durably.core.error_text import writable
from durably.core.errors import ContextWindowExceededError, StepError
from durably.core.hooks import Refusal, after_model, after_tool, before_model, before_tool
from durably.core.ids import check_session_key
from durably.core.messages import ContentPart, ToolCall, ToolResultMessage, UserMessage, user
from durably.core.model import ModelResponse
from durably.core.model_steps import Later, call_model
from durably.core.progress import Progress
from durably.core.result import AgentResult, AgentStopReason
from durably.core.run_session import RunSession
from durably.core.shortening import can_prune, shorten
from durably.core.spending import Spent
from durably.core.steps import StepAPI
from durably.core.tool_context import RunContext
from durably.core.tools import ToolOutcome
from durably.core.toolsets import ListedTools, listed_tools

__all__ = ["AgentLoop", "create_agent_loop"]

FEW_TURNS = 2
"""From this many turns left on, the model is told."""

AgentLoop = Callable[[StepAPI, Logger | None], Coroutine[Any, Any, AgentResult]]


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
    """Return the loop of one agent and one message, for any function that has steps.

    Args:
        agent: The agent.
        message: The user's message.
        session_key: The session, for an agent with ``sessions``.
        context: The context of the run, of the agent's ``context_type``. See :class:`~durably.core.AgentInput`.
        depth: How many delegations led to this agent; delegates with a ``max_depth`` count on from there.
        budget: What it may spend at most, beside the agent's own budget.
        save: Whether the loop adds its messages to the session: the user's message at the beginning, each turn that
            calls tools when its calls are known, and the rest at the end.

    Returns:
        ``async (step, logger) -> AgentResult``. It holds no state: called again on replay, it takes the same path.

    Raises:
        TypeError: If the session key is not a text.
        ValueError: If it is not 1 to 200 printable characters.
    """
    if session_key is not None:
        check_session_key(session_key)
    run = RunContext(agent.context_data(context), session_key, depth)
    limit = agent.budget if budget is None else budget.within(agent.budget)

    async def run_loop(step: StepAPI, logger: Logger | None) -> AgentResult:
        spent = Spent()
        with spent.told_by_errors():
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
            turns = _Turns(
                agent=agent,
                step=step,
                logger=logger,
                run=run,
                limit=limit,
                tools=tools,
                conversation=conversation,
                session=session,
                progress=Progress(conversation, spent),
            )
            result = await turns.result()
            await session.end(answered=result.stop_reason == "completed")
            return result

    return run_loop


async def _load_context(agent: AgentParts, step: StepAPI, run: RunContext) -> str:
    if agent.asks_context:
        return await step.run("load-context", agent.load_context, run)
    return await step.run("load-context", agent.load_context)


@dataclass(frozen=True, kw_only=True)
class _Turns:
    """The turns of one run.

    Attributes:
        agent: The agent.
        step: The steps of the run.
        logger: Is told of each turn, if there is one.
        run: What its tools may know of the run.
        limit: What it may spend.
        tools: Those of the run.
        conversation: What is said.
        session: Where it is kept.
        progress: What the run has come to.
    """

    agent: AgentParts
    step: StepAPI
    logger: Logger | None
    run: RunContext
    limit: Budget | None
    tools: ListedTools
    conversation: Conversation
    session: RunSession
    progress: Progress

    async def result(self) -> AgentResult:
        """Take turns until one is the last."""
        for turns_left in range(self.agent.max_iterations, 0, -1):
            result = await self._turn(turns_left)
            if result is not None:
                return result
        return self.progress.result("max_iterations")

    async def _turn(self, turns_left: int) -> AgentResult | None:
        """Take one turn; the result of the run if it ends here."""
        progress = self.progress
        if self.limit and await self._is_spent(self.limit):
            return progress.result("budget")
        if progress.iterations:
            await self.session.take_messages()
        response = await self._think(turns_left)
        if isinstance(response, Refusal):
            return progress.refused(response.reason)
        calls = response.message.tool_calls
        progress.count(response, len(calls))
        if self.limit:
            self.limit.check_price(response)
        self.conversation.add(response.message)
        if calls:
            await self._act(response, calls)
            return None
        stop_reason = await self._ending(response)
        return None if stop_reason is None else progress.result(stop_reason)

    async def _is_spent(self, limit: Budget) -> bool:
        """Whether nothing is left of the budget; if something is, the model is told how much."""
        await self.progress.check_time(self.agent, self.step, limit)
        if limit.is_spent(self.progress.spent):
            return True
        self.conversation.transcript.spent = limit.warning(self.progress.spent)
        return False

    async def _think(self, turns_left: int) -> ModelResponse | Refusal:
        """One answer of the model; on a conversation that is too long, after a summary of its older part."""
        agent, step, conversation = self.agent, self.step, self.conversation
        few_turns = turns_left if turns_left <= FEW_TURNS else None
        if agent.compaction and agent.compaction.is_due(self.progress.last_turn):
            await self._shorten()
        if agent.hooks:
            refusal = await before_model(agent, step, conversation.transcript)
            if refusal is not None:
                return refusal
        tries = 2 if can_prune(agent, conversation) else 1
        while True:
            try:
                asked = conversation.asked(few_turns)
                later = Later("fetch-answer", agent.fetch_answer, agent.give_up, conversation.known)
                response = await call_model(agent, step, "think", agent.think, *asked, later=later)
                break
            except StepError as error:
                too_long = tries and error.error_type == ContextWindowExceededError.__name__
                if not (too_long and await self._shorten()):
                    raise
                tries -= 1
        if not agent.hooks:
            return response
        answer = await after_model(agent, step, response)
        if isinstance(answer, Refusal):
            self.progress.spent.add(response.usage, response.cost)
        elif answer is not response and agent.output_form is not None:
            return agent.output_form.judged(answer)
        return answer

    async def _shorten(self) -> bool:
        return await shorten(self.agent, self.step, self.session, self.conversation, self.progress)

    async def _act(self, response: ModelResponse, calls: list[ToolCall]) -> None:
        """Answer the calls of a turn, concurrently if there are several; outcomes come in the order of the calls."""
        progress = self.progress
        await self.session.save_turn()
        if self.logger:
            self.logger.info("turn %d: %s", progress.iterations, ", ".join(call.name for call in calls))
        share = self._share(response)
        run = self.run if share is None else replace(self.run, budget=share)
        checked_in_step = response.checked_in_steps
        answers = [partial(_answer, self.agent, self.tools, self.step, call, run, checked_in_step) for call in calls]
        kept: dict[int, str | ToolOutcome] = {}
        outcomes: Sequence[str | ToolOutcome]
        try:
            if len(answers) == 1:
                outcomes = [await answers[0]()]
            else:
                outcomes = await self.step.gather(*(partial(_keep, kept, *each) for each in enumerate(answers)))
        except Exception as error:
            # Told by the failure of this run: what the other agents of the turn spent, and those that failed.
            progress.count_delegated(kept[place] for place in sorted(kept))
            progress.spent.add_failure(error)
            raise
        progress.count_delegated(outcomes)
        self.conversation.add(*map(_result, calls, outcomes))

    def _share(self, response: ModelResponse) -> Budget | None:
        """What each agent that is asked in a turn may spend: they work at once, so none may count on another's part."""
        if not self.limit or not response.shares_budget:
            return None
        return self.limit.left(self.progress.spent).divided(response.budget_shares)

    async def _ending(self, response: ModelResponse) -> AgentStopReason | None:
        """Why the run ends with an answer that calls no tools; ``None`` if the model is to go on."""
        if response.stop_reason == "pause":
            return None
        if response.stop_reason == "refusal":
            return "refused"
        if response.stop_reason == "max_tokens":
            return "max_tokens"
        complaint = await self.progress.take(self.agent, self.step, response)
        if complaint is None:
            return "completed"
        if self.progress.complaints > self.agent.output_retries:
            return "invalid_output"
        self.conversation.add(user(complaint))
        return None


def _result(call: ToolCall, outcome: str | ToolOutcome) -> ToolResultMessage:
    if isinstance(outcome, str):
        return ToolResultMessage(call_id=call.id, name=call.name, content=outcome)
    return outcome.message(call)


async def _keep(
    kept: dict[int, str | ToolOutcome], place: int, answer: Callable[[], Awaitable[str | ToolOutcome]]
) -> str | ToolOutcome:
    """Answer one of several calls. Its outcome is kept also if another one fails the turn."""
    kept[place] = outcome = await answer()
    return outcome


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
