"""The apps that an engine can reach: those it was given, over ASGI, and those on ports of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from durably.core.errors import Signal
from durably.core.ids import new_id
from durably.testing.inngest.calls import Call, Lost, Reply, send

__all__ = ["App", "Apps"]

App = Callable[..., Awaitable[None]]


class Apps:
    """Apps by their addresses."""

    def __init__(self) -> None:
        self._apps: dict[str, httpx.AsyncClient] = {}

    @asynccontextmanager
    async def serve(self, app: App) -> AsyncIterator[str]:
        """Make an ASGI app reachable for as long as the block lasts; gives its address."""
        address = f"http://app-{new_id()[:8]}.local"
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), timeout=None) as http:
            self._apps[address] = http
            try:
                yield address
            finally:
                del self._apps[address]

    async def close(self) -> None:
        """Let go of connections to apps that have ports of their own."""
        for http in self._apps.values():
            await http.aclose()

    async def post(self, url: str, call: Call, signing_key: str | None) -> Reply:
        """Make a call.

        Raises:
            Lost: If no answer came back.
        """
        address = "/".join(url.split("/")[:3])
        if address not in self._apps:
            self._apps[address] = httpx.AsyncClient(timeout=None)  # on a port of its own
        http = self._apps[address]
        try:
            return await send(http, url.partition("?")[0], call, signing_key)
        except (Exception, Signal) as error:  # the app died under the call
            raise Lost(repr(error)) from error

    def reaches(self, url: str) -> bool:
        """Whether there is an app, or may be one on a port of its own."""
        return "/".join(url.split("/")[:3]) in self._apps or url.startswith("http://127.0.0.1:")
