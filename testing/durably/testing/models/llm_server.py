"""A model provider on loopback: real HTTP, strict about requests, scripted, and unreliable on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, Self

from durably.core import ModelError
from durably.core.model import ModelRequest
from durably.core.serialization import digest
from durably.testing.models.late import LateAnswers
from durably.testing.models.prompt_cache import PromptCache
from durably.testing.models.scripted import Reply, ScriptedModel
from durably.testing.models.wire import anthropic, chat, responses
from durably.testing.models.wire.http import HTTPRequest, read_request, write_events, write_json
from durably.testing.models.wire.strict import InvalidRequest

__all__ = ["Fault", "LLMServer"]

FORMATS: dict[str, ModuleType] = {
    "/v1/messages": anthropic,
    "/v1/chat/completions": chat,
    "/v1/responses": responses,
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one request. Made by the class methods.

    Attributes:
        kind: What.
        status: The HTTP status of an answer.
        code: The provider's own name of the error; left out, the usual one of the status.
        headers: Sent along, such as ``{"retry-after": "2"}``.
        after: How many events of a stream come before it.
    """

    kind: Literal["status", "too_long", "hang", "reset", "lost", "cut", "end", "error_event", "garbage"]
    status: int = 200
    code: str | None = None
    message: str = "this fault was asked for"
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0

    @classmethod
    def answer(cls, status: int, *, code: str | None = None, message: str = "asked for", **headers: str) -> Fault:
        """An error status. Headers are given by name: ``retry_after="2"``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(kind="status", status=status, code=code, message=message, headers=named)

    @classmethod
    def too_long(cls) -> Fault:
        """The conversation is longer than the model can read, in each provider's own words."""
        return cls(kind="too_long")

    @classmethod
    def hang(cls) -> Fault:
        """No answer until the client gives up."""
        return cls(kind="hang")

    @classmethod
    def reset(cls) -> Fault:
        """The connection breaks before the request is looked at."""
        return cls(kind="reset")

    @classmethod
    def lost(cls) -> Fault:
        """The model answers, and the connection breaks before the first byte of it arrives."""
        return cls(kind="lost")

    @classmethod
    def cut(cls, after: int = 2) -> Fault:
        """The connection breaks in the middle of the answer: after so many events, or half of the body."""
        return cls(kind="cut", after=after)

    @classmethod
    def end(cls, after: int = 2) -> Fault:
        """A stream that ends properly, but too early; a whole body that is empty."""
        return cls(kind="end", after=after)

    @classmethod
    def error_event(cls, after: int = 2, *, code: str | None = None) -> Fault:
        """An error event inside a stream with status 200; without streaming, status 500."""
        return cls(kind="error_event", after=after, code=code)

    @classmethod
    def garbage(cls, status: int = 200) -> Fault:
        """A body that is no JSON, as some proxies give it."""
        return cls(kind="garbage", status=status)


class LLMServer:
    """Speaks Anthropic Messages, OpenAI chat completions and OpenAI Responses, streamed and not.

    The reply is chosen as by :class:`~durably.testing.ScriptedModel`: by the number of assistant messages in the
    request, so a repeated request gets the same reply, and the same request id. A request that the real server would
    refuse is refused. It also makes answers in the background (Responses), and takes batches of one request
    (Anthropic's, and OpenAI's with their files).

    Args:
        replies: The script: see :class:`~durably.testing.ScriptedModel`. A ``ModelError`` in it is answered with its
            status.
        faults: What goes wrong with the first request that comes in, with the second, and so on; ``None``: nothing.
            Or a function that says it of each request.
        prompt_cache: A cache that says how many tokens each answer reads and writes, in place of the script.
        polls: How often it is asked for an answer made in the background, or in a batch, before that is there.

    Attributes:
        requests: Every valid request, as the model's side reads it.
        received: Every request at all, as it came in.
        submitted: The requests that it has taken to answer them later. Each has an ``id`` and says how it ``ended``,
            if it was not by its answer.
    """

    def __init__(
        self,
        *replies: Reply | Callable[[ModelRequest], Reply],
        faults: Sequence[Fault | None] | Callable[[HTTPRequest], Fault | None] = (),
        prompt_cache: PromptCache | None = None,
        polls: int = 2,
    ) -> None:
        self._model = ScriptedModel(*replies)
        self._choose = faults if callable(faults) else None
        self._faults = [] if callable(faults) else list(faults)
        self._prompt_cache = prompt_cache
        self._late = LateAnswers(self._body, polls)
        self.submitted = self._late.jobs
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.received: list[HTTPRequest] = []

    @property
    def requests(self) -> list[ModelRequest]:
        """Every valid request, as the model's side reads it."""
        return self._model.requests

    @property
    def url(self) -> str:
        """Its address, such as ``"http://127.0.0.1:49152"``: the ``base_url`` for Anthropic's SDK."""
        if self._server is None:
            raise RuntimeError("the server is not running: use it inside 'async with LLMServer(...)'")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def openai_url(self) -> str:
        """The ``base_url`` for OpenAI's SDK."""
        return f"{self.url}/v1"

    def fail(self, *faults: Fault | None) -> None:
        """What goes wrong with the next request, with the one after it, and so on, instead of what was planned."""
        self._faults, self._choose = list(faults), None

    def assert_used_up(self) -> None:
        """Check that every reply of the script was asked for and every fault has happened.

        Raises:
            AssertionError: If some were not.
        """
        self._model.assert_used_up()
        if self._faults:
            raise AssertionError(f"{len(self._faults)} faults never happened: {self._faults}")

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**26)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close every connection."""
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            goes_on = True
            while goes_on and (request := await read_request(reader)) is not None:
                goes_on = await self._serve(request, reader, writer)
                await writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            pass  # the server stops, or the client has gone
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, request: HTTPRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection lives on."""
        self.received.append(request)
        fault = self._fault(request)
        if fault is not None and fault.kind == "reset":
            writer.transport.abort()
            return False
        if fault is not None and fault.kind == "hang":
            await reader.read(1)  # returns when the client closes
            return False
        wire = FORMATS.get(request.path, anthropic if request.path.startswith("/v1/messages/") else responses)
        # The same for the same request, as the reply is: a client that asks again must not see another world.
        request_id = f"req_{digest(request.path.encode() + request.body)}"
        headers = {"request-id": request_id, "x-request-id": request_id}
        try:
            frames, text = await self._answer(wire, request)
        except (InvalidRequest, ModelError) as error:
            status = error.status or 500
            write_json(writer, status, json.dumps(wire.failure(status, str(error), request_id)), headers)
            return True
        if fault is not None:
            return _answer_with_fault(fault, wire, writer, frames, text, headers)
        if frames is None:
            write_json(writer, 200, text, headers)
        else:
            write_events(writer, frames, headers)
        return True

    def _fault(self, request: HTTPRequest) -> Fault | None:
        if self._choose is not None:
            return self._choose(request)
        return self._faults.pop(0) if self._faults else None

    async def _answer(self, wire: ModuleType, request: HTTPRequest) -> tuple[list[Any] | None, str]:
        """The events of the answer, or ``None`` if no stream was asked for, and its body."""
        try:
            late = await self._late.handle(request)
            if late is not None:
                return None, late
            if request.path not in FORMATS or request.method != "POST":
                raise InvalidRequest("no such path", status=404)
            data = request.json()
        except ValueError as error:
            raise InvalidRequest(f"the body is not a JSON object: {error}") from None
        body = await self._body(request.path, data, request.headers)
        return list(wire.events(body)) if data.get("stream") else None, json.dumps(body)

    async def _body(self, path: str, data: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """The JSON of the answer to a request."""
        wire = FORMATS[path]
        asked = wire.parse(data, headers)
        response = await self._model.complete(asked)
        if self._prompt_cache is not None:
            counted = self._prompt_cache.usage(path, data)
            usage = counted.model_copy(update={"output_tokens": response.usage.output_tokens})
            response = response.model_copy(update={"usage": usage})
        body: dict[str, Any] = wire.body(response, asked, data["model"])
        return body


def _answer_with_fault(
    fault: Fault,
    wire: ModuleType,
    writer: asyncio.StreamWriter,
    frames: list[Any] | None,
    text: str,
    headers: Mapping[str, str],
) -> bool:
    """Answer a request as its fault says; whether the connection lives on."""
    request_id = headers["request-id"]
    if fault.kind == "lost":
        writer.transport.abort()
        return False
    if fault.kind == "garbage" or (fault.kind == "end" and frames is None):
        write_json(writer, fault.status, "<html>a proxy</html>" if fault.kind == "garbage" else "", headers)
        return True
    if fault.kind == "too_long":
        write_json(writer, 400, json.dumps(wire.too_long(request_id)), headers)
        return True
    if fault.kind == "status" or (fault.kind == "error_event" and frames is None):
        status = fault.status if fault.kind == "status" else 500
        error = wire.failure(status, fault.message, request_id, fault.code)
        write_json(writer, status, json.dumps(error), {**headers, **fault.headers})
        return True
    if frames is None:
        write_json(writer, 200, text, headers, cut=True)
    else:
        shown = frames[: min(fault.after, len(frames) - 1)]
        if fault.kind == "error_event":
            shown.append(wire.error_frame(fault.message, request_id, fault.code))
        write_events(writer, shown, headers, cut=fault.kind == "cut")
    return fault.kind != "cut"
