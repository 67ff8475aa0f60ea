"""Serves the page until the process is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import uvicorn

from durably.cli.address import Program
from durably.ui.app import make_app
from durably.ui.guard import LOOPBACK

__all__ = ["serve"]


async def serve(
    program: Program,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    hosts: Iterable[str] = LOOPBACK,
    password: str | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page.

    Args:
        program: See :func:`~durably.ui.app.make_app`.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        hosts: See :func:`~durably.ui.app.make_app`.
        password: See :func:`~durably.ui.app.make_app`.
        ready: Is called with the address once a browser can open it.
    """
    app = make_app(program, hosts=hosts, password=password)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # streams of events never end by themselves
        )
    )
    task = asyncio.create_task(server.serve())
    try:
        while not server.started and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # uvicorn says in no other way that it listens
        if not task.done():
            ready(_address(host, server))
        await asyncio.wait({task})
    finally:
        server.should_exit = True  # cancelled instead, it would leave its sockets open
        await task


def _address(host: str, server: uvicorn.Server) -> str:
    (listening,) = server.servers
    port = listening.sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
