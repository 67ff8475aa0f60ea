"""Making the functions reachable: on a loopback port of our own, or in an app of the user's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import inngest
import inngest.fast_api
import uvicorn

__all__ = ["App", "StoppableApp", "fastapi_app", "serve_on_loopback"]

App = Callable[..., Awaitable[None]]


def fastapi_app(client: inngest.Inngest, functions: list[inngest.Function[Any]]) -> fastapi.FastAPI:
    """An app with nothing but the functions."""
    app = fastapi.FastAPI()
    inngest.fast_api.serve(app, client, functions)
    return app


class StoppableApp:
    """An app that can be told to take no more requests, and to die.

    Args:
        app: The app.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.closed and scope["type"] == "http":
            raise ConnectionResetError("this worker is going down")
        # In a task of its own, so that the request can be cut off without ending the server's.
        task = asyncio.ensure_future(self._app(scope, receive, send))
        self._tasks.add(task)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._tasks.discard(task)
        if task.cancelled():
            raise ConnectionResetError("this worker has died")
        task.result()

    def cut_off(self) -> None:
        """Answer nothing any more."""
        self.closed = True
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    async def stop(self, grace: float) -> None:
        """Take no more requests, and let those under way end.

        Args:
            grace: Seconds they are given; then they are cut off.
        """
        self.closed = True
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace)
        self.cut_off()


@asynccontextmanager
async def serve_on_loopback(app: App) -> AsyncIterator[str]:
    """Serve an ASGI app on a free port of this machine, for as long as the block lasts; gives its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listener]))  # `serve` would take over the program's signals
        try:
            while not server.started:
                await asyncio.sleep(0.01)
                if task.done():
                    task.result()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
