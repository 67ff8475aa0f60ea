"""How a person approves what a remote MCP server is to do: by a tool that only says whether they did."""

from __future__ import annotations

from durably.core.messages import JSONObject
from durably.core.server_tools import RemoteMCP
from durably.core.tool_definition import define_tool
from durably.core.tools import Tool

__all__ = ["APPROVED", "approval_name", "approval_tool"]

APPROVED = "approved"
"""What the tool answers. Anything else is why the person did not approve."""


def approval_name(server: str) -> str:
    """Return the name of the tool by which calls of a server are approved."""
    return f"mcp_{server}"


def approval_tool(server: RemoteMCP) -> Tool:
    """Return the tool that stands for a person's approval of a call. No model sees it.

    A person cannot change the arguments, which the provider keeps: a change is told to the model as a refusal.
    """

    def approve(tool: str, arguments: JSONObject | str) -> str:
        return APPROVED

    name, description = approval_name(server.name), f"A call of a tool of {server.url}."
    return define_tool(approve, {}, name=name, description=description, requires_approval=True, retries=0)
