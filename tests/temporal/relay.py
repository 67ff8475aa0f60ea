"""What stands between clients and a server, and opens a connection to the server for each of a client."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

__all__ = ["PADDED", "PREFACE", "PRIORITY", "Relay", "unpadded"]

PREFACE = 24
"""How many bytes a client sends before its first frame of HTTP/2."""

PADDED, PRIORITY = 0x8, 0x20


class Relay(ABC):
    """Passes on what clients and a server say, on loopback.

    Args:
        address: The server's, ``host:port``.
        context: What TLS it speaks to clients; ``None`` for none.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, address: str, context: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._host, _, port = address.rpartition(":")
        self._server_port = int(port)
        self._context = context
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen, and cut every connection at the end."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for each in self._connections:
                each.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        answers, server = await asyncio.open_connection(self._host, self._server_port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.ask(reader, server, client))
                group.create_task(self.answer(answers, client))
        finally:
            server.close()
            client.close()

    @abstractmethod
    async def ask(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        """Pass on what a client says, until it says no more."""

    @abstractmethod
    async def answer(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Pass on what the server says, until it says no more."""


def unpadded(payload: bytes, flags: int) -> bytes:
    """The headers in a frame of them."""
    assert flags & 0x4, "headers in one frame"
    if flags & PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    return payload[5:] if flags & PRIORITY else payload
