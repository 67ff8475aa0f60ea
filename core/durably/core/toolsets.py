"""Toolsets: tools that are known only when a run begins, such as those of a server.

Owns: the port, what is recorded of such tools, and how a call of one becomes a step. Does not own: plain tools
(``tools.py``), and what toolsets there are (``function_toolset.py``, ``durably.mcp``).

A step lists the tools once for each run and records them. What the model sees, and how the loop treats a call, follows
from that record, on whatever worker the run goes on. A call is a step of the toolset's own; where its tools are not at
hand, the toolset makes them again.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from durably.core.approval import ApprovalQuestion, name_question
from durably.core.error_text import error_text
from durably.core.errors import DefinitionError, ToolError
from durably.core.left_out import is_falsy, is_none
from durably.core.messages import JSONObject, ToolCall
from durably.core.model import ToolSpec
from durably.core.serialization import Codec, digest
from durably.core.steps import StepAPI
from durably.core.tool_context import RunContext
from durably.core.tools import NO_CONTEXT, Effect, Tool, ToolOutcome

__all__ = ["ListedSpecs", "ListedTool", "ListedTools", "Toolset", "ToolsetTool", "listed_tools"]


class ListedTool(BaseModel):
    """A tool of a toolset, as the step that lists it records it.

    Attributes:
        name: What the model calls it.
        description: What the model reads.
        parameters: The JSON schema of its arguments.
        source_name: What the toolset itself calls it, if that is not ``name``.
        retries: See :class:`~durably.core.Tool`, here and below.
        timeout: In seconds.
        effect: What a second execution would do.
        on_error: What happens when the attempts are used up.
        requires_approval: Whether a person may have to approve a call.
        approval_by_arguments: Whether the arguments of a call decide that. Its toolset says how:
            :meth:`Toolset.needs_approval`.
        approval_timeout: In seconds.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    name: str
    description: str
    parameters: JSONObject
    source_name: str | None = Field(default=None, exclude_if=is_none)
    retries: int | None = Field(default=None, exclude_if=is_none)
    timeout: float | None = Field(default=None, exclude_if=is_none)
    effect: Effect = Field(default="idempotent", exclude_if=lambda value: value == "idempotent")
    on_error: Literal["report", "raise"] = Field(default="report", exclude_if=lambda value: value == "report")
    requires_approval: bool = Field(default=False, exclude_if=is_falsy)
    approval_by_arguments: bool = Field(default=False, exclude_if=is_falsy)
    approval_timeout: float | None = Field(default=None, exclude_if=is_none)

    @property
    def spec(self) -> ToolSpec:
        """What the model sees of it."""
        return ToolSpec(name=self.name, description=self.description, parameters=self.parameters)

    def __digest__(self) -> str:
        """Return a text that is equal for equal tools: a call does not record the schema again."""
        return digest(self.model_dump_json())


class Toolset(ABC):
    """Tools that are listed once for each run. It is an item of ``Agent(tools=[...])``, like a tool.

    The methods are bodies of steps. Any worker may run them.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the toolset, unique in its agent: 1 to 64 letters, digits, ``_`` and ``-``."""

    @abstractmethod
    async def list_tools(self, run: RunContext) -> list[ListedTool]:
        """Return the tools of a run: the body of the step ``list-<name>``."""

    @abstractmethod
    async def call_tool(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> str | ToolOutcome:
        """Run one call: the body of the step ``tool-<name of the tool>``.

        Args:
            listed: The tool, as it was listed.
            arguments: The model's arguments, not validated.
            run: The context of the run.
        """

    async def needs_approval(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> bool:
        """Return whether a person must approve a call, if the tool was listed with ``approval_by_arguments``.

        It is called once, in the step ``request-<name of the tool>``. Without an override, every call needs approval.

        Args:
            listed: The tool, as it was listed.
            arguments: The model's arguments, not validated.
            run: The context of the run.

        Raises:
            ToolError: If the arguments do not fit. The model is told so, and nobody is asked.
        """
        return True

    async def question(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> ApprovalQuestion:
        """Name the question about a call: the body of the step ``request-<name of the tool>``."""
        try:
            needed = await self.needs_approval(listed, arguments, run)
        except ToolError as error:
            return name_question(complaint=error_text(error))
        if not needed:
            return name_question(needed=False)
        return name_question(tool=listed.name, arguments=arguments, timeout=listed.approval_timeout)

    def bound(self, agent: str, context: Codec) -> Toolset:
        """Return this toolset for an agent.

        Args:
            agent: The agent's name.
            context: Reads its context.
        """
        return self


def _never(**_: object) -> NoReturn:
    raise AssertionError("a listed tool is run by its toolset")


@dataclass(frozen=True, kw_only=True)
class ToolsetTool(Tool):
    """A tool of a toolset in one run.

    Attributes:
        toolset: The toolset.
        listed: What was recorded of the tool.
    """

    fn: Callable[..., Any] = _never
    toolset: Toolset
    listed: ListedTool

    def check(self, call: ToolCall) -> str | None:
        """See :meth:`~durably.core.Tool.check`: the step finds out."""
        return None

    def checks_in_step(self, call: ToolCall) -> bool:
        """See :meth:`~durably.core.Tool.checks_in_step`."""
        return True

    def asking(self, call: ToolCall, run: RunContext) -> tuple[Any, ...]:
        """See :meth:`~durably.core.Tool.asking`: the toolset decides what its tool leaves to the arguments."""
        if self.listed.approval_by_arguments:
            return self.toolset.question, self.listed, call.arguments, run
        return super().asking(call, run)

    async def act(self, step: StepAPI, call: ToolCall, run: RunContext = NO_CONTEXT) -> str | ToolOutcome:
        """See :meth:`~durably.core.Tool.act`."""
        return await step.run(
            f"tool-{self.name}",
            self.toolset.call_tool,
            self.listed,
            call.arguments,
            run,
            retries=self.retries,
            timeout=self.timeout,
            at_most_once=self.effect == "at_most_once",
        )


@dataclass(frozen=True)
class ListedSpecs:
    """What the model sees of the listed tools of a run, as an argument of ``think``. A record keeps its digest."""

    tools: list[ToolSpec]

    @cached_property
    def _digest(self) -> str:
        return digest(json.dumps([vars(each) for each in self.tools], sort_keys=True))

    def __digest__(self) -> str:
        """Return a text that is equal for equal tools. See :class:`durably.core.serialization.Digested`."""
        return self._digest


class ListedTools:
    """The tools of an agent in one run.

    Args:
        tools: Those that every run has.
        listed: Those of its toolsets, as they were recorded.

    Attributes:
        tools: All of them, by name.
        specs: What the model sees of the listed ones, or ``None`` if there are none.
    """

    def __init__(self, tools: Mapping[str, Tool], listed: Sequence[tuple[Toolset, list[ListedTool]]] = ()) -> None:
        self.tools = dict(tools)
        specs: list[ToolSpec] = []
        for each, found in listed:
            for one in found:
                if one.name in self.tools:
                    raise DefinitionError(
                        f"the toolset {each.name!r} has a tool {one.name!r}, and the agent has another one of that "
                        "name: rename one, or give an MCP server a prefix="
                    )
                self.tools[one.name] = _tool_of(each, one)
                specs.append(one.spec)
        self.specs = ListedSpecs(specs) if specs else None


class _Anything(BaseModel):
    """The arguments of a listed tool, which its step judges."""


def _tool_of(toolset: Toolset, listed: ListedTool) -> ToolsetTool:
    options: dict[str, Any] = {
        name: getattr(listed, name)
        for name in ("retries", "timeout", "effect", "on_error", "requires_approval", "approval_timeout")
    }
    return ToolsetTool(spec=listed.spec, arguments=_Anything, toolset=toolset, listed=listed, **options)


async def listed_tools(
    step: StepAPI, tools: Mapping[str, Tool], toolsets: Sequence[Toolset], run: RunContext
) -> ListedTools:
    """Return the tools of an agent in a run, those of its toolsets as recorded by a step each.

    Args:
        step: The steps of the run.
        tools: The tools that every run has.
        toolsets: The toolsets.
        run: The context of the run.

    Raises:
        DefinitionError: If two tools have one name.
        StepError: If a toolset cannot list its tools.
    """
    found = [(each, await step.run(f"list-{each.name}", each.list_tools, run)) for each in toolsets]
    return ListedTools(tools, found)
