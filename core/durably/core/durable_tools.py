"""Tools that are durable code: a durable function, which is invoked, and code that runs steps of its own.

Owns: what a call of one does. Does not own: how they are made (``tool_definition.py``), and tools that an agent answers
(``delegation.py``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, RootModel, create_model

from durably.core.error_text import error_text, type_name
from durably.core.errors import DurablyError, StepError, ToolError
from durably.core.functions import Function
from durably.core.messages import JSONObject, ToolCall
from durably.core.reference import FunctionRef
from durably.core.result import AgentResult
from durably.core.spending import Spent, spent_by
from durably.core.steps import StepAPI
from durably.core.tool_context import RunContext
from durably.core.tools import NO_CONTEXT, Tool, ToolOutcome, refused

__all__ = ["UNKNOWN", "CodeTool", "FunctionTool", "delegated_outcome", "failed_outcome", "function_arguments"]

UNKNOWN = Spent(cost=None)
"""Of an agent of which nobody says what it had spent. A cost of 0 would be wrong."""

INPUT = "input"
"""The parameter of a durable function whose input is no object."""


CLOSED = ConfigDict(extra="forbid")


def _never(**_: object) -> NoReturn:
    raise AssertionError("a durable function is invoked, not called")


@dataclass(frozen=True, kw_only=True)
class FunctionTool(Tool):
    """A tool that a durable function answers, in a run of its own. :func:`tool` makes one.

    Attributes:
        function: The function.
        takes: What a call's arguments are to it: its ``"input"``, the one ``"parameter"``, or ``"nothing"``.
    """

    fn: Callable[..., Any] = _never
    function: FunctionRef[Any, Any]
    takes: str

    async def act(self, step: StepAPI, call: ToolCall, run: RunContext = NO_CONTEXT) -> str | ToolOutcome:
        """See :meth:`~durably.core.Tool.act`: ``step.invoke``."""
        # By a reference, which knows no input type: the child judges its input itself, and its verdict is recorded.
        child = FunctionRef[Any, Any](self.function.id, output_type=self.function.output.type)
        try:
            result = await step.invoke(f"tool-{self.name}", child, self._input(call.arguments), timeout=self.timeout)
        except StepError as error:
            spent = spent_by(error)
            if self.on_error == "raise" or spent is None:
                raise
            return failed_outcome(error, spent)
        return delegated_outcome(child.id, result) if isinstance(result, AgentResult) else self._outcome(result)

    def _parse(self, arguments: JSONObject | str) -> dict[str, object]:
        """See :meth:`~durably.core.Tool`: whoever asks whether a person must approve gets JSON."""
        super()._parse(arguments)
        return dict(arguments) if isinstance(arguments, dict) else {}

    def _input(self, arguments: JSONObject | str) -> object:
        if self.takes == "nothing" or isinstance(arguments, str):
            return None
        return arguments[INPUT] if self.takes == "parameter" else arguments


def function_arguments(function: Function[Any, Any], name: str) -> tuple[type[BaseModel], JSONObject, str]:
    """Return the model of the arguments of a durable function, their JSON schema, and what they are to it.

    Args:
        function: The function.
        name: The name of the tool.
    """
    tp = function.input.type
    if tp in (None, type(None)):
        return (*_model(create_model(name, __config__=CLOSED)), "nothing")
    schema = function.input.json_schema()
    if schema.get("type") != "object" or "properties" not in schema:
        return (*_model(create_model(name, __config__=CLOSED, **_one_field(tp))), "parameter")
    schema.pop("title", None)
    schema.pop("description", None)  # the docstring of the type; the tool has one of its own
    return RootModel[tp], schema, "input"  # type: ignore[valid-type]  # a type that is known at run time


def _one_field(tp: object) -> dict[str, Any]:
    return {INPUT: (tp, ...)}


def _model(arguments: type[BaseModel]) -> tuple[type[BaseModel], JSONObject]:
    schema = arguments.model_json_schema()
    schema.pop("title", None)
    return arguments, schema


@dataclass(frozen=True, kw_only=True)
class CodeTool(Tool):
    """A tool whose code runs in the run itself, and may run steps of its own. ``@tool(steps=True)`` makes one."""

    async def act(self, step: StepAPI, call: ToolCall, run: RunContext = NO_CONTEXT) -> str | ToolOutcome:
        """See :meth:`~durably.core.Tool.act`: the code's own steps, in a branch, and a step that keeps the outcome."""

        async def branch() -> str | ToolOutcome:
            return await self._run_code(step, call, run)

        # In a branch, its steps are numbered among themselves: one that it calls "think" is none of the loop's.
        try:
            (outcome,) = await step.gather(branch)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

        async def keep() -> str | ToolOutcome:
            return outcome

        return await step.run(f"tool-{self.name}", keep)

    async def _run_code(self, step: StepAPI, call: ToolCall, run: RunContext) -> str | ToolOutcome:
        try:
            parsed = self._parse(call.arguments)
            value = self.fn(**parsed, **({} if self.asks is None else self.asks.given(run, step)))
            while inspect.isawaitable(value):
                value = await value
            return self._outcome(value)
        except ToolError as error:
            return refused(error)
        except Exception as error:  # whatever the code raises is told to the model, as for a tool in a step
            # A refusal of the code (it does not fit the records) is raised again by the next step.
            if self.on_error == "raise":
                raise
            told = str(error) if isinstance(error, DurablyError) else f"{type_name(error)}: {error_text(error)}"
            return ToolOutcome(content=told, is_error=True)


def failed_outcome(error: StepError, spent: Spent) -> ToolOutcome:
    """Return what the model is told of an agent that failed, and what that agent had spent."""
    return ToolOutcome(
        content=str(error), is_error=True, usage=spent.usage, cost=spent.cost, tool_calls=spent.tool_calls
    )


def delegated_outcome(agent_id: str, result: AgentResult) -> ToolOutcome:
    """Return what the model is told of an answer of another agent, and what the answer cost."""
    content = result.text or f"({agent_id} gave no text)"
    done = result.stop_reason == "completed"
    if not done:
        content = f"{agent_id} ended before it was done ({result.stop_reason}). Its last words: {content}"
    return ToolOutcome(
        content=content, is_error=not done, usage=result.usage, cost=result.cost, tool_calls=result.tool_calls
    )
