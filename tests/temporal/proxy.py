"""A proxy on loopback that speaks TLS to clients and plain HTTP/2 to the server, and reads the headers that pass."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hpack

__all__ = ["Proxy"]

PREFACE = 24
"""How many bytes a client sends before its first frame."""

HEADERS = 1
PADDED, PRIORITY = 0x8, 0x20


class Proxy:
    """Ends TLS in front of a server.

    Args:
        address: The server's, ``host:port``.
        context: The proxy's certificate, and what it asks of a client.

    Attributes:
        port: Where it listens.
        requests: The headers of each request that went through.
    """

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2"])
        self.port = 0
        self.requests: list[dict[str, str]] = []
        self._host, _, port = address.partition(":")
        self._server_port = int(port)
        self._context = context

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen, and cut every connection at the end."""
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for each in self._connections:
                each.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        there, onward = await asyncio.open_connection(self._host, self._server_port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._upward(reader, onward))
                group.create_task(_pour(there, writer))
        finally:
            onward.close()
            writer.close()

    async def _upward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Frame by frame, so that the headers can be read: a frame is length, type, flags, stream, payload."""
        decoder = hpack.Decoder()
        writer.write(await reader.readexactly(PREFACE))
        while True:
            try:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            except asyncio.IncompleteReadError:
                writer.close()
                return
            if head[3] == HEADERS:
                self.requests.append(_headers(decoder, payload, head[4]))
            writer.write(head + payload)
            await writer.drain()


def _headers(decoder: hpack.Decoder, payload: bytes, flags: int) -> dict[str, str]:
    assert flags & 0x4, "headers in one frame"
    if flags & PADDED:
        payload = payload[1 : -payload[0]] if payload[0] else payload[1:]
    if flags & PRIORITY:
        payload = payload[5:]
    return {str(name): str(value) for name, value in decoder.decode(payload)}


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
