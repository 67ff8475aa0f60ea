"""Just enough HTTP/1.1 for a loopback server that can also break off in the middle of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.testing.models.wire.strict import Frame

__all__ = ["HTTPRequest", "read_request", "write_events", "write_json"]


@dataclass(frozen=True)
class HTTPRequest:
    """A request as it came in.

    Attributes:
        method: Such as ``"POST"``.
        path: Without the query.
        headers: With lower-case names.
        body: The bytes.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            ValueError: If it is none.
        """
        data = json.loads(self.body)
        if not isinstance(data, dict):
            raise ValueError("the body must be a JSON object")  # noqa: TRY004  # to the server it is one kind of bad body
        return data


async def read_request(reader: asyncio.StreamReader) -> HTTPRequest | None:
    """The next request of a connection, or ``None`` when the client has gone."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.split(":", 1) for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body = await _read_chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return HTTPRequest(method, target.partition("?")[0], headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(chunks)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Answer\r\n{lines}\r\n".encode("latin-1")


def write_json(
    writer: asyncio.StreamWriter, status: int, text: str, headers: Mapping[str, str], *, cut: bool = False
) -> None:
    """Write a whole answer; or, cut, half of it."""
    data = text.encode()
    head = {"content-type": "application/json", "content-length": str(len(data)), **headers}
    writer.write(_head(status, head) + (data[: len(data) // 2] if cut else data))


def write_events(
    writer: asyncio.StreamWriter, frames: list[Frame], headers: Mapping[str, str], *, cut: bool = False
) -> None:
    """Write a stream; or, cut, one that does not end."""
    head = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers}
    parts = [_head(200, head)]
    for frame in frames:
        name = f"event: {frame.event}\n" if frame.event else ""
        data = frame.data if isinstance(frame.data, str) else json.dumps(frame.data)
        chunk = f"{name}data: {data}\n\n".encode()
        parts += [f"{len(chunk):x}\r\n".encode(), chunk, b"\r\n"]
    # Without the last, empty chunk the client knows that the stream was broken off.
    writer.write(b"".join(parts) + (b"" if cut else b"0\r\n\r\n"))
