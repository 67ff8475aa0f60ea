"""An MCP server that this process serves over HTTP: quicker to start than a program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from mcp.server.mcpserver import MCPServer


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that another process, or another library, makes happen."""
    while not happened():  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0.01)


@asynccontextmanager
async def served(server: MCPServer) -> AsyncIterator[str]:
    """The address of a server."""
    config = uvicorn.Config(
        server.streamable_http_app(), port=0, log_level="error", ws="none", timeout_graceful_shutdown=1
    )
    http = uvicorn.Server(config)
    task = asyncio.create_task(http.serve())
    await until(lambda: http.started)
    port = http.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        http.should_exit = True
        await task
