"""What stands in an agent's ``tools=``, made to tools, toolsets and tools of the provider that are the agent's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from durably.core.agent_bodies import AgentBodies
from durably.core.errors import DefinitionError
from durably.core.function_toolset import makes_tools, toolset
from durably.core.functions import Function
from durably.core.model import Model, ToolSpec
from durably.core.serialization import Codec
from durably.core.server_tool_approval import approval_tool
from durably.core.server_tools import RemoteMCP, ServerTool, check_server_tools, split_tools
from durably.core.tool_definition import define_tool
from durably.core.tools import Tool
from durably.core.toolsets import Toolset

__all__ = ["AgentTools", "agent_tools"]

Named = TypeVar("Named", Tool, Toolset)


@dataclass(frozen=True, kw_only=True)
class AgentTools:
    """The tools of an agent.

    Attributes:
        own: Those that the model may call, by their names.
        toolsets: Those whose tools are listed anew for each run.
        hosted: Those that the provider runs.
    """

    own: Mapping[str, Tool]
    toolsets: tuple[Toolset, ...]
    hosted: tuple[ServerTool, ...]

    @property
    def by_name(self) -> dict[str, Tool]:
        """The own tools, and those that stand for a person's approval of what a provider is to do."""
        approvals = [approval_tool(each) for each in self.hosted if isinstance(each, RemoteMCP)]
        return {**self.own, **{each.name: each for each in approvals}}

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model sees of the own tools."""
        return tuple(each.spec for each in self.own.values())

    @property
    def uses(self) -> list[Function[Any, Any]]:
        """The functions that they call."""
        return [used for each in self.own.values() for used in each.uses]

    def check(self, agent: str, model: Model) -> None:
        """Refuse a tool that the agent's model, or one it falls back to, does not have. Raises DefinitionError."""
        deferred = [each.name for each in self.specs if each.deferred]
        check_server_tools(agent, self.hosted, deferred, getattr(model, "models", (model,)))


def agent_tools(agent: str, given: Sequence[Any], names: Mapping[str, object], context: Codec) -> AgentTools:
    """Return the tools of an agent.

    Args:
        agent: Its name.
        given: What stands in ``tools=``.
        names: Local names that the annotations of plain functions may use.
        context: Reads the agent's context.

    Raises:
        DefinitionError: If two have one name, or one is none.
    """
    own, hosted = split_tools(given)
    made = [_made(agent, each, names) for each in own]
    tools = _by_name(agent, [each.bound(agent, context) for each in made if isinstance(each, Tool)])
    toolsets = _by_name(agent, [each.bound(agent, context) for each in made if isinstance(each, Toolset)])
    return AgentTools(own=tools, toolsets=tuple(toolsets.values()), hosted=hosted)


def _made(agent: str, each: object, names: Mapping[str, object]) -> Tool | Toolset:
    """Return the tool or the toolset that stands in ``tools=``."""
    if isinstance(each, AgentBodies):
        raise DefinitionError(f"agent {agent!r}: {each!r} in its tools is an agent: write delegate({each.name})")
    if isinstance(each, Tool | Toolset):
        return each
    fn: Any = each
    return toolset(fn) if makes_tools(fn, names) else define_tool(fn, names)


def _by_name(agent: str, given: Sequence[Named]) -> dict[str, Named]:
    """Return tools, or toolsets, by their names."""
    by_name: dict[str, Named] = {}
    for each in given:
        if each.name in by_name:
            kind = "tools" if isinstance(each, Tool) else "toolsets"
            raise DefinitionError(f"agent {agent!r} has two {kind} named {each.name!r}: rename one, with name=")
        by_name[each.name] = each
    return by_name
