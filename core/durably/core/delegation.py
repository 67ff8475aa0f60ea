"""Delegation: tools that hand a task to another agent.

Owns: the three such tools, and what they tell the model. Does not own: reading a time (``due_times.py``).

The loop treats them like any other tool. The child is a run of its own, with its agent's model, instructions and tools
and a conversation of its own. Its run id comes from the parent's run id and step key alone, so a crash cannot start a
second child.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from durably.core.agent import Agent, start_event
from durably.core.due_times import due_time
from durably.core.durable_tools import UNKNOWN, delegated_outcome, failed_outcome
from durably.core.durations import timeout_seconds
from durably.core.error_spending import carry_spending
from durably.core.error_text import writable
from durably.core.errors import DefinitionError, StepError, ToolError, UnsupportedFeatureError
from durably.core.events import Event
from durably.core.messages import JSONObject, ToolCall
from durably.core.model import ToolSpec
from durably.core.reference import FunctionRef
from durably.core.result import AgentInput, AgentResult
from durably.core.run_events import child_id
from durably.core.serialization import Codec
from durably.core.spending import Spent, spent_by
from durably.core.steps import Duration, StepAPI, current_step
from durably.core.tool_context import RunContext, fits, type_label
from durably.core.tools import NO_CONTEXT, Tool, ToolOutcome, check_tool_name

__all__ = ["Delegate", "delegate", "delegate_async", "delegate_scheduled", "started_text"]

Mode = Literal["wait", "start", "schedule"]


class _Task(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid")

    task: str = Field(
        min_length=1, description="All the agent needs to know: it sees nothing of this conversation but this text."
    )


class _LaterTask(_Task):
    when: float | str = Field(
        description="When it starts: a time in ISO 8601 with its zone ('2030-01-31T09:00:00Z'), or how long from now: "
        "seconds (7200) or text ('2h', '1 day 12 hours', 'PT2H')."
    )


COUNTS_CUT_OFF = "durably-count-cut-off"
"""The patch since which it is read from its records what an agent had spent that was cut off."""


def _never(**_: object) -> NoReturn:
    raise AssertionError("a delegate is answered by its agent, not by a function")


@dataclass(frozen=True, kw_only=True)
class Delegate(Tool):
    """A tool that another agent answers. :func:`delegate` and its siblings make one.

    Attributes:
        agent: The agent.
        mode: ``"wait"`` for its answer, ``"start"`` it and go on, or ``"schedule"`` it for later.
        max_depth: The largest depth of nested delegations, or ``None`` for no limit.
        now: Returns the time, in seconds since 1970, that a delay is counted from.
        pass_context: Whether the agent gets the context of the calling run.
        share_budget: Whether the agent may spend no more than its part of what is left of the budget of the run that
            asks it.
    """

    fn: Callable[..., Any] = _never
    agent: FunctionRef[str | AgentInput, AgentResult]
    mode: Mode
    max_depth: int | None = None
    now: Callable[[], float] = time.time
    pass_context: bool = True
    share_budget: bool = True

    @property
    def draws_on_budget(self) -> bool:
        """See :attr:`~durably.core.Tool.draws_on_budget`. Nobody counts what an agent spends that is not waited for."""
        return self.mode == "wait" and self.share_budget

    async def act(self, step: StepAPI, call: ToolCall, run: RunContext = NO_CONTEXT) -> str | ToolOutcome:
        """See :meth:`~durably.core.Tool.act`: ``step.invoke`` or ``step.send_event``."""
        complaint = self.check(call)  # it follows from what is recorded, so it is the same on replay
        if complaint is not None:
            return ToolOutcome(content=writable(complaint), is_error=True)
        if self.max_depth is not None and run.depth >= self.max_depth:
            content = f"tasks may be handed on {self.max_depth} deep, and this one was: do it yourself"
            return ToolOutcome(content=content, is_error=True)
        arguments = _LaterTask if self.mode == "schedule" else _Task
        task = arguments.model_validate(call.arguments)
        given = run.context if self.pass_context else None
        if self.mode == "wait":
            context = self._typed(given)
            budget = run.budget if self.draws_on_budget else None
            asked = AgentInput(message=task.task, context=context, depth=run.depth + 1, budget=budget)
            return await self._wait(step, asked)
        asked = AgentInput(message=task.task, context=given, depth=run.depth + 1)
        ts: float | None = None
        if isinstance(task, _LaterTask):
            due = await step.run(f"when-{self.name}", self.due, task.when)
            if isinstance(due, ToolOutcome):
                return due
            ts = due
        return await self._start(step, asked, ts)

    def bound(self, agent: str, context: Codec) -> Delegate:
        """See :meth:`~durably.core.Tool.bound`. The other agent must be able to do with what it is given."""
        if isinstance(self.agent, Agent):
            _check_context(f"agent {agent!r}: its tool {self.name!r}", context, self.agent, self.pass_context)
        return self

    def _typed(self, given: object) -> object:
        """The context as the other agent takes it: judged when this run began, and not again."""
        return self.agent.context_codec.rebuild(given) if isinstance(self.agent, Agent) and given is not None else given

    async def _start(self, step: StepAPI, asked: AgentInput, ts: float | None) -> str:
        event = Event(start_event(self.agent.id), asked.model_dump(mode="json", exclude={"session_key"}), ts=ts)
        (event_id,) = await step.send_event(f"tool-{self.name}", event)
        return started_text(self.agent.id, event_id, ts)

    async def _wait(self, step: StepAPI, asked: AgentInput) -> ToolOutcome:
        try:
            result = await step.invoke(f"tool-{self.name}", self.agent, asked, timeout=self.timeout)
        except StepError as error:
            spent = spent_by(error) or await self._spent_until_cut_off(step, error)
            if self.on_error == "report":
                return failed_outcome(error, spent)
            carry_spending(error, spent.to_data())
            raise
        return delegated_outcome(self.agent.id, result)

    async def _spent_until_cut_off(self, step: StepAPI, error: StepError) -> Spent:
        """What an agent had spent whose run did not end by an error of its code, but by a timeout or a cancellation."""
        try:
            if not step.patched(COUNTS_CUT_OFF):  # an earlier version went on without it
                return UNKNOWN
            return Spent.of_data(await step.run(f"count-{self.name}", self.count, error.step))
        except (StepError, UnsupportedFeatureError):  # its records cannot be read, or the engine has no patches
            return UNKNOWN

    async def count(self, key: str) -> dict[str, Any]:
        """Return what the agent has spent by its records that was asked in a step: the body of ``count-<name>``."""
        info = current_step()
        spending = info.services.spending
        spent = UNKNOWN if spending is None else await spending(child_id(info.run_id, key))
        return spent.to_data()

    async def due(self, when: str | float) -> float | ToolOutcome:
        """Return the moment to start at, or what is wrong with it: the body of ``when-<name>``."""
        try:
            return due_time(when, self.now())
        except ToolError as error:
            return ToolOutcome(content=str(error), is_error=True)


def started_text(agent_id: str, event_id: str, ts: float | None) -> str:
    """Return what the model is told of a delegate that was started, or will be at ``ts`` (seconds since 1970)."""
    begins = "has started" if ts is None else f"will start at {datetime.fromtimestamp(ts, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return f"{agent_id} {begins} (event {event_id}) and works on its own; its answer does not come back here"


def delegate(
    agent: Agent | str,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Duration | None = None,
    on_error: Literal["report", "raise"] = "report",
    max_depth: int | None = None,
    pass_context: bool = True,
    share_budget: bool = True,
) -> Delegate:
    """Return a tool that gives a task to another agent and waits for its answer.

    The parent's run waits meanwhile. Cancelling it cancels the child. The child's usage and cost are part of the
    parent's. The child has this tool only if its agent has it.

    Args:
        agent: The agent. A backend registers it along with the agent that has the tool. Or the id of an agent that is
            registered anyway, such as the agent that has the tool; ``max_depth`` must then be given.
        name: The tool's name for the model. Default: ``ask_<agent>``.
        description: What the agent is good for, as a text for the model.
        timeout: Seconds, or a ``timedelta``, to wait. Then the child is cancelled and the model gets an error result.
        on_error: What happens when the child fails: ``"report"`` gives the model an error result, ``"raise"`` fails the
            run.
        max_depth: The largest depth of nested delegations through this tool. Default: no limit.
        pass_context: Whether the agent gets the context of the calling run.
        share_budget: Whether the agent may spend only what is left of the calling run's budget. Several calls of one
            turn each get an equal part of that.

    Raises:
        DefinitionError: If an agent is named by its id without ``max_depth``, or the tool's name cannot be used.
    """
    try:
        timeout_seconds(timeout, f"delegate({_id(agent)!r}): timeout")
    except (TypeError, ValueError) as error:
        raise DefinitionError(str(error)) from None
    description = description or f"Hand a task to the agent {_id(agent)!r} and wait for its answer."
    made = _define("wait", agent, name, description, max_depth, pass_context)
    return replace(made, timeout=timeout, on_error=on_error, share_budget=share_budget)


def delegate_async(
    agent: Agent | str,
    *,
    name: str | None = None,
    description: str | None = None,
    max_depth: int | None = None,
    pass_context: bool = True,
) -> Delegate:
    """Return a tool that starts another agent by an event without waiting. The child may outlive this run.

    Args:
        agent: See :func:`delegate`.
        name: The tool's name for the model. Default: ``start_<agent>``.
        description: What the model reads.
        max_depth: See :func:`delegate`.
        pass_context: See :func:`delegate`.

    Raises:
        DefinitionError: See :func:`delegate`.
    """
    description = description or f"Start the agent {_id(agent)!r} on a task and go on without its answer."
    return _define("start", agent, name, description, max_depth, pass_context)


def delegate_scheduled(
    agent: Agent | str,
    *,
    name: str | None = None,
    description: str | None = None,
    max_depth: int | None = None,
    pass_context: bool = True,
    now: Callable[[], float] = time.time,
) -> Delegate:
    """Return a tool that starts another agent once, at a time that the model chooses, by an event with a future ``ts``.

    The model gives a time in ISO 8601 or a delay. If it cannot be parsed, has no zone or is in the past, the model gets
    an error result that says so.

    Args:
        agent: See :func:`delegate`.
        name: The tool's name for the model. Default: ``schedule_<agent>``.
        description: What the model reads.
        max_depth: See :func:`delegate`. A reminder that sets the next reminder counts as well.
        pass_context: See :func:`delegate`.
        now: Returns the time, in seconds since 1970. It is called in a step, once.

    Raises:
        DefinitionError: See :func:`delegate`.
    """
    description = description or f"Have the agent {_id(agent)!r} start on a task later, without waiting for it."
    return replace(_define("schedule", agent, name, description, max_depth, pass_context), now=now)


_VERBS: dict[Mode, str] = {"wait": "ask", "start": "start", "schedule": "schedule"}


def _define(
    mode: Mode, agent: Agent | str, name: str | None, description: str, max_depth: int | None, pass_context: bool
) -> Delegate:
    name = name or f"{_VERBS[mode]}_{re.sub(r'[^A-Za-z0-9_-]', '_', _id(agent))}"
    check_tool_name(name)
    if isinstance(agent, str) and max_depth is None:
        raise DefinitionError(
            f"tool {name!r}: an agent that is named by its id may come back to itself; say how deep: max_depth=3"
        )
    if max_depth is not None and max_depth < 1:
        raise DefinitionError(f"tool {name!r}: max_depth must be 1 or more, not {max_depth}")
    arguments = _LaterTask if mode == "schedule" else _Task
    return Delegate(
        spec=ToolSpec(name=name, description=description, parameters=_schema(arguments)),
        arguments=arguments,
        agent=FunctionRef(agent, input_type=AgentInput, output_type=AgentResult) if isinstance(agent, str) else agent,
        uses=() if isinstance(agent, str) else (agent,),
        mode=mode,
        max_depth=max_depth,
        pass_context=pass_context,
    )


def _check_context(where: str, own: Codec, agent: Agent, passed: bool) -> None:
    """Refuse a delegate that cannot get the context that it needs."""
    wanted = agent.context_codec.type
    if passed and not fits(own.type, wanted):
        raise DefinitionError(
            f"{where}: {agent.name!r} has context_type={type_label(wanted)}, and the agent that asks it has another "
            "one: make the two the same, or write pass_context=False"
        )
    if not passed and not agent.takes_no_context:
        raise DefinitionError(f"{where}: {agent.name!r} needs a context: leave out pass_context=False")


def _id(agent: Agent | str) -> str:
    return agent if isinstance(agent, str) else agent.id


@cache
def _schema(arguments: type[BaseModel]) -> JSONObject:
    schema = arguments.model_json_schema()
    schema.pop("title")
    return schema
