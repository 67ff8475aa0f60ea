"""How the providers write the tools that they run themselves.

Written after https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview,
https://docs.anthropic.com/en/docs/agents-and-tools/mcp-connector and https://platform.openai.com/docs/guides/tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import SecretStr

from durably.core.server_tools import CodeExecution, RemoteMCP, ServerTool, ToolSearch, WebSearch
from durably.core.steps import current_step
from durably.providers.answers import UnanswerableError

__all__ = ["MCP_BETA", "anthropic_gap", "anthropic_servers", "anthropic_tools", "openai_gap", "openai_tools"]

MCP_BETA = "mcp-client-2025-11-20"
"""The beta of Anthropic's in which a request may name remote MCP servers."""


def anthropic_gap(tool: ServerTool) -> str | None:
    """Return what Anthropic lacks of a tool, or ``None``."""
    if isinstance(tool, RemoteMCP) and tool.requires_approval:
        return "Anthropic asks nobody before it calls a server; give the agent the server's tools as its own"
    if isinstance(tool, RemoteMCP) and not tool.url.startswith("https://"):
        return "its url must begin with https://"
    if isinstance(tool, WebSearch) and tool.allowed_domains and tool.blocked_domains:
        return "give either allowed_domains= or blocked_domains="
    return None


def anthropic_tools(tools: Sequence[ServerTool]) -> Iterator[dict[str, Any]]:
    """Yield the tools as Anthropic takes them among the agent's own."""
    for tool in tools:
        if isinstance(tool, WebSearch):
            limits = {"max_uses": tool.max_uses, "allowed_domains": [*tool.allowed_domains]}
            limits["blocked_domains"] = [*tool.blocked_domains]
            given = {name: value for name, value in limits.items() if value}
            yield {"type": "web_search_20250305", "name": "web_search", **given}
        elif isinstance(tool, CodeExecution):
            yield {"type": "code_execution_20250825", "name": "code_execution"}
        elif isinstance(tool, ToolSearch):
            yield {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
        else:
            made: dict[str, Any] = {"type": "mcp_toolset", "mcp_server_name": tool.name}
            if tool.allowed_tools:
                made["default_config"] = {"enabled": False}
                made["configs"] = {name: {"enabled": True} for name in tool.allowed_tools}
            yield made


def anthropic_servers(tools: Sequence[ServerTool]) -> list[dict[str, Any]]:
    """Return the remote servers of a request to Anthropic."""
    servers = [tool for tool in tools if isinstance(tool, RemoteMCP)]
    return [
        {"type": "url", "name": each.name, "url": each.url}
        | ({"authorization_token": _secret(each.token)} if each.token else {})
        for each in servers
    ]


def openai_gap(tool: ServerTool) -> str | None:
    """Return what OpenAI's Responses lack of a tool, or ``None``."""
    if isinstance(tool, WebSearch) and (tool.max_uses is not None or tool.blocked_domains):
        return "OpenAI has neither max_uses= nor blocked_domains=; model_options={'max_tool_calls': 3} limits them all"
    return None


def openai_tools(tools: Sequence[ServerTool]) -> Iterator[dict[str, Any]]:
    """Yield the tools as OpenAI's Responses take them among the agent's own."""
    for tool in tools:
        if isinstance(tool, WebSearch):
            filters = {"filters": {"allowed_domains": [*tool.allowed_domains]}} if tool.allowed_domains else {}
            yield {"type": "web_search", **filters}
        elif isinstance(tool, CodeExecution):
            yield {"type": "code_interpreter", "container": {"type": "auto"}}
        elif isinstance(tool, ToolSearch):
            yield {"type": "tool_search"}
        else:
            approval = "always" if tool.requires_approval else "never"
            made = {"type": "mcp", "server_label": tool.name, "server_url": tool.url, "require_approval": approval}
            if tool.allowed_tools:
                made["allowed_tools"] = [*tool.allowed_tools]  # type: ignore[assignment]
            yield {**made, "authorization": _secret(tool.token)} if tool.token else made


def _secret(resource: str) -> str:
    try:
        found = current_step().resources[resource]
    except (KeyError, RuntimeError):
        raise UnanswerableError(f"no token: give the backend resources={{{resource!r}: SecretStr(...)}}") from None
    return found.get_secret_value() if isinstance(found, SecretStr) else str(found)
