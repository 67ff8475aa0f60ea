"""One connection to an MCP server: made when it is needed, shared by the steps of a process, dropped when it is lost.

The official client's tasks must begin and end in one task, so each connection lives in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from durably.core import DefinitionError
from durably.core.error_text import error_text, type_name
from durably.core.messages import JSONObject

try:
    import httpx2

    import mcp
    from mcp.client.stdio import StdioServerParameters
    from mcp.client.streamable_http import streamable_http_client
    from mcp.types import INVALID_PARAMS, CallToolResult, Tool, ToolListChangedNotification
except ImportError as error:
    raise ImportError("MCPServer needs the package mcp: pip install 'durably[mcp]'") from error

__all__ = ["Address", "Connection", "HTTPAddress", "Session", "StdioAddress"]

PAGES = 100
"""A server whose list of tools has more pages than this is not read further."""

Secret = Mapping[str, str] | str | None
"""Values by name, the name of a resource that holds them, or nothing."""


@dataclass(frozen=True)
class StdioAddress:
    """A program that speaks MCP on its standard input and output.

    Args:
        command: The program.
        args: Its arguments.
        env: Its environment variables.
        cwd: Its working directory, or ``None``.
    """

    command: str
    args: tuple[str, ...]
    env: Secret
    cwd: str | None

    def __str__(self) -> str:
        return self.command

    async def client(self, stack: AsyncExitStack, resources: Mapping[str, Any], heard: Any) -> mcp.Client:
        """Return a client that starts the program when it is entered."""
        env = _resolved(self.env, resources)
        program = StdioServerParameters(command=self.command, args=list(self.args), env=env, cwd=self.cwd)
        return mcp.Client(program, message_handler=heard, cache=None)


@dataclass(frozen=True)
class HTTPAddress:
    """A server that speaks streamable HTTP.

    Args:
        url: Its address.
        headers: HTTP headers.
    """

    url: str
    headers: Secret

    def __str__(self) -> str:
        return self.url.partition("?")[0]  # what follows may hold a token

    async def client(self, stack: AsyncExitStack, resources: Mapping[str, Any], heard: Any) -> mcp.Client:
        """Return a client that connects when it is entered."""
        timeout = httpx2.Timeout(30.0, read=300.0)  # a server may hold an answer open while a tool works
        http = httpx2.AsyncClient(headers=_resolved(self.headers, resources), timeout=timeout)
        await stack.enter_async_context(http)
        transport = streamable_http_client(self.url, http_client=http)
        return mcp.Client(transport, message_handler=heard, cache=None)


Address = StdioAddress | HTTPAddress


def _resolved(secret: Secret, resources: Mapping[str, Any]) -> dict[str, str] | None:
    if not isinstance(secret, str):
        return None if secret is None else dict(secret)
    if secret not in resources:
        raise DefinitionError(f"an MCP server needs the resource {secret!r} of the backend: add it to resources=")
    return dict(resources[secret])


class Session:
    """What a step may ask of a server.

    Args:
        client: The official client, connected.
    """

    def __init__(self, client: mcp.Client) -> None:
        self._client = client
        self._tools: list[Tool] | None = None

    def forget(self) -> None:
        """Forget the list of tools: the server says that it has changed."""
        self._tools = None

    async def tools(self) -> list[Tool]:
        """Return the server's tools. They are asked for once, and again when the server says that they changed."""
        found = self._tools
        if found is None:
            found, cursor = [], None
            for _ in range(PAGES):
                page = await self._client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
            self._tools = found
        return found

    async def call(self, name: str, arguments: JSONObject, meta: dict[str, Any]) -> CallToolResult | str:
        """Call a tool; what is wrong with the arguments if the server says so at once."""
        try:
            return await self._client.call_tool(name, arguments, meta=meta)  # type: ignore[arg-type]  # a TypedDict with extras
        except mcp.MCPError as error:
            if error.error.code == INVALID_PARAMS:
                return error.error.message
            raise


class Connection:
    """A connection and the task in which it lives.

    Args:
        name: The name of the server.
        address: Where it is.
        idle: Seconds after which it ends, if nobody uses it.
        resources: The backend's.
    """

    def __init__(self, name: str, address: Address, idle: float, resources: Mapping[str, Any]) -> None:
        self._name = name
        self._address = address
        self._idle = idle
        self._resources = resources
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._session: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live())

    @property
    def ended(self) -> bool:
        """Whether it is of no use any more."""
        return self._over.is_set() or self._task.done()

    @asynccontextmanager
    async def using(self) -> AsyncIterator[Session]:
        """The session, for as long as a step uses it.

        Raises:
            ConnectionError: If it cannot be made, was lost meanwhile, or the server gives no answer that can be used.
        """
        self._users += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            yield await asyncio.shield(self._session)
        except DefinitionError:
            raise  # nothing is wrong with the connection
        except Exception as error:  # the client raises many kinds, of its own and of what it stands on
            self._over.set()  # the next attempt makes a new one
            error = _alone(error)
            said = f"{type_name(error)}: {error_text(error)}"
            raise ConnectionError(f"the MCP server {self._name!r} ({self._address}) failed: {said}") from error
        finally:
            self._users -= 1
            if not self._users and not self.ended:
                self._timer = asyncio.get_running_loop().call_later(self._idle, self._over.set)

    async def aclose(self) -> None:
        """End it, and wait until it has ended."""
        self._over.set()
        await asyncio.wait([self._task])

    async def _live(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                client = await self._address.client(stack, self._resources, self._heard)
                await stack.enter_async_context(client)
                self._session.set_result(Session(client))
                try:
                    await self._over.wait()
                finally:
                    self._over.set()  # cancelled: closing takes its time, and nobody may be given it meanwhile
        except Exception as error:
            if not self._session.done():
                self._session.set_exception(_alone(error))
                self._session.exception()  # whoever waits has it; nobody may
        finally:
            if not self._session.done():
                self._session.cancel()

    async def _heard(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification) and self._session.done():
            self._session.result().forget()


def _alone(error: Exception) -> Exception:
    """The error in a group of one, as task groups raise it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
