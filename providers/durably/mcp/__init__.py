"""Tools of MCP servers, by the official ``mcp`` package."""

from durably.mcp.server import MCPServer

__all__ = ["MCPServer"]
