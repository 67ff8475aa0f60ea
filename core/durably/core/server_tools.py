"""Tools that a model's provider runs by itself, beside the agent's own.

Owns: what they are, and which models have them. Does not own: how a provider writes them (``durably.providers``), and
how a person approves a call of a remote server (``server_tool_approval.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from durably.core.errors import DefinitionError

__all__ = [
    "CodeExecution",
    "RemoteMCP",
    "ServerTool",
    "ToolSearch",
    "WebSearch",
    "check_server_tools",
    "split_tools",
]

_LABEL = re.compile(r"[a-zA-Z0-9_-]{1,60}")


@dataclass(frozen=True, kw_only=True)
class WebSearch:
    """The provider searches the web.

    Args:
        max_uses: How many searches one answer may take. Anthropic alone takes a limit.
        allowed_domains: The only domains to be searched. Default: all.
        blocked_domains: Domains that are left out. Anthropic alone takes them, and not beside ``allowed_domains``.
    """

    max_uses: int | None = None
    allowed_domains: Sequence[str] = ()
    blocked_domains: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class CodeExecution:
    """The provider runs code that the model writes, in a container of its own."""


@dataclass(frozen=True, kw_only=True)
class ToolSearch:
    """The model looks up tools that are deferred, ``@tool(deferred=True)``, instead of reading all of them at once."""


@dataclass(frozen=True, kw_only=True)
class RemoteMCP:
    """The provider calls the tools of an MCP server itself.

    Args:
        name: What the server is called: 1 to 60 letters, digits, ``_`` and ``-``.
        url: Its address.
        token: The name of a resource of the backend that is the server's access token. The token is never recorded.
        allowed_tools: The only tools to be used. Default: all.
        requires_approval: Whether a person must approve each call, as for a tool of the agent's own. OpenAI alone asks.

    Raises:
        DefinitionError: If the name is not one.
    """

    name: str
    url: str
    token: str | None = None
    allowed_tools: Sequence[str] = ()
    requires_approval: bool = False

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.name):
            raise DefinitionError(f"RemoteMCP: the name {self.name!r} must have 1 to 60 letters, digits, '_' and '-'")


ServerTool = WebSearch | CodeExecution | ToolSearch | RemoteMCP
"""A tool that the provider runs."""


def split_tools(tools: Iterable[Any]) -> tuple[list[Any], tuple[ServerTool, ...]]:
    """Return the agent's own tools, and those of the provider."""
    own: list[Any] = []
    hosted: list[ServerTool] = []
    for each in tools:
        if isinstance(each, ServerTool):
            hosted.append(each)
        else:
            own.append(each)
    return own, tuple(hosted)


def check_server_tools(agent: str, tools: Sequence[ServerTool], deferred: Sequence[str], models: Iterable[Any]) -> None:
    """Refuse a tool that one of an agent's models does not have.

    Args:
        agent: The agent, for the error.
        tools: The provider's tools that the agent wants.
        deferred: The names of those own tools that must be looked up.
        models: The agent's models. One that has such tools has a method ``server_tool_gap(tool)``: what it lacks of a
            tool, in words, or ``None``.

    Raises:
        DefinitionError: If a model lacks one, two of one kind are given, or nothing looks deferred tools up.
    """
    labels = [each.name if isinstance(each, RemoteMCP) else type(each).__name__ for each in tools]
    if len(set(labels)) < len(labels):
        raise DefinitionError(f"agent {agent!r}: each tool of the provider can be given once, not {', '.join(labels)}")
    if deferred and not any(isinstance(each, ToolSearch) for each in tools):
        raise DefinitionError(f"agent {agent!r}: the tool {deferred[0]!r} is deferred, so add ToolSearch() to tools=")
    for model in models:
        for each in tools:
            gap_of = getattr(model, "server_tool_gap", None)
            gap = "it has no tools of its own" if gap_of is None else gap_of(each)
            if gap is not None:
                raise DefinitionError(f"agent {agent!r}: {model.name} cannot take {each}: {gap}")
