"""A proxy on loopback that speaks TLS to clients and plain HTTP/2 to the server, and reads the headers that pass."""

from __future__ import annotations

import asyncio
import ssl

import hpack

from tests.temporal.relay import PREFACE, Relay, unpadded

__all__ = ["Proxy"]

HEADERS = 1


class Proxy(Relay):
    """Ends TLS in front of a server.

    Args:
        address: The server's, ``host:port``.
        context: The proxy's certificate, and what it asks of a client.

    Attributes:
        requests: The headers of each request that went through.
    """

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2"])
        super().__init__(address, context)
        self.requests: list[dict[str, str]] = []

    async def ask(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        """Frame by frame, so that the headers can be read: a frame is length, type, flags, stream, payload."""
        decoder = hpack.Decoder()
        server.write(await reader.readexactly(PREFACE))
        while True:
            try:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            except asyncio.IncompleteReadError:
                server.close()
                return
            if head[3] == HEADERS:
                self.requests.append(_headers(decoder, payload, head[4]))
            server.write(head + payload)
            await server.drain()

    async def answer(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            client.write(data)
            await client.drain()
        client.close()


def _headers(decoder: hpack.Decoder, payload: bytes, flags: int) -> dict[str, str]:
    return {str(name): str(value) for name, value in decoder.decode(unpadded(payload, flags))}
