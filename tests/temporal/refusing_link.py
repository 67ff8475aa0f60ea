"""A worker's way to the server on which calls are refused, as by a server that cannot write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hpack

from tests.temporal.relay import PADDED, PREFACE, PRIORITY, Relay, unpadded

__all__ = ["INVALID_ARGUMENT", "UNAVAILABLE", "RefusingLink"]

INVALID_ARGUMENT, UNAVAILABLE = 3, 14
"""Codes of gRPC: a call that nobody makes again, and one that clients do."""

DATA, HEADERS, WINDOW_UPDATE = 0x0, 0x1, 0x8
END_STREAM, END_HEADERS = 0x1, 0x4

Refuses = Callable[[str], int | None]
"""Is asked about each call, by its name: the code it is refused with, or ``None``."""


class RefusingLink(Relay):
    """Passes HTTP/2 on between workers and a server, frame by frame, and answers some calls itself.

    Args:
        address: The server's, as ``host:port``.
        refuses: Which calls.

    Attributes:
        refused: The calls that were refused, in order.
    """

    def __init__(self, address: str, refuses: Refuses) -> None:
        super().__init__(address)
        self.refused: list[str] = []
        self._refuses = refuses

    @property
    def address(self) -> str:
        """Where workers connect to."""
        return f"127.0.0.1:{self.port}"

    async def ask(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        await _Calls(self, reader, server, client).pass_on()

    async def answer(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Whole frames, so that answers fit between them."""
        while True:
            try:
                client.write(_frame(*await _read(reader)))
            except asyncio.IncompleteReadError:
                client.close()
                return
            await client.drain()

    def code_of(self, path: str) -> int | None:
        """The code that a call is refused with, if it is."""
        name = path.rpartition("/")[2]
        code = self._refuses(name)
        if code is not None:
            self.refused.append(name)
        return code


class _Calls:
    """The calls of one connection. Headers are compressed anew, since the server does not see all of them."""

    def __init__(
        self,
        link: RefusingLink,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        self._link = link
        self._reader = reader
        self._server = server
        self._client = client
        self._decoder = hpack.Decoder()
        self._encoder = hpack.Encoder()
        self._codes: dict[int, int] = {}

    async def pass_on(self) -> None:
        self._server.write(await self._reader.readexactly(PREFACE))
        while True:
            try:
                kind, flags, stream, payload = await _read(self._reader)
            except asyncio.IncompleteReadError:
                self._server.close()
                return
            if kind == HEADERS:
                flags, payload = self._begin(flags, stream, payload)
            if stream in self._codes:
                self._refuse(kind, flags, stream, payload)
            else:
                self._server.write(_frame(kind, flags, stream, payload))
                await self._server.drain()

    def _begin(self, flags: int, stream: int, payload: bytes) -> tuple[int, bytes]:
        headers = self._decoder.decode(unpadded(payload, flags))
        path = next(value for name, value in headers if name in (":path", b":path"))
        code = self._link.code_of(path if isinstance(path, str) else path.decode())
        if code is not None:
            self._codes[stream] = code
            return flags, b""
        return flags & ~(PADDED | PRIORITY), self._encoder.encode(headers)

    def _refuse(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA and payload:  # the server would have given the room for it back
            self._client.write(_frame(WINDOW_UPDATE, 0, 0, len(payload).to_bytes(4, "big")))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            answer = [(":status", "200"), ("content-type", "application/grpc")]
            answer += [("grpc-status", str(self._codes[stream])), ("grpc-message", "no space left on device")]
            # Not kept in the table of headers, which is the server's.
            block = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in answer])
            self._client.write(_frame(HEADERS, END_HEADERS | END_STREAM, stream, block))


async def _read(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], head[4], int.from_bytes(head[5:], "big"), payload


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
