"""An MCP server as a toolset: what it is, which of its tools an agent gets, and what a call of one comes to.

Owns: the description of the server, and the bodies of its steps. Does not own: connections (``connection.py``), what is
made of a tool and of a result (``conversion.py``), and what is recorded of tools (``durably.core.toolsets``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from durably.core import DefinitionError, Toolset, current_step
from durably.core.durations import Duration, timeout_seconds
from durably.core.messages import JSONObject
from durably.core.tool_context import RunContext
from durably.core.tools import Effect, ToolOutcome, check_tool_name
from durably.core.toolsets import ListedTool
from durably.mcp.connection import Address, Connection, HTTPAddress, StdioAddress
from durably.mcp.conversion import Choice, listed, outcome

__all__ = ["MCPServer"]

logger = logging.getLogger("durably")

IDEMPOTENCY_KEY = "durably/idempotency-key"
"""The field of a call's ``_meta`` that holds the idempotency key of its step."""


class MCPServer(Toolset):
    """The tools of an MCP server, for ``Agent(tools=[...])``. Give it either a ``command`` or a ``url``.

    The tools are listed in a step, once for each run. Each call is a step. A process connects when it first needs the
    server, and again after a lost connection.

    Args:
        name: The name of the server, unique in an agent.
        command: The server program and its arguments. It speaks MCP on its standard input and output.
        url: The address of a server that speaks streamable HTTP.
        env: Environment variables of the program, in addition to ``PATH`` and similar ones; or the name of a resource
            of the backend that holds them. They are not recorded.
        cwd: The working directory of the program.
        headers: HTTP headers, such as the one that holds a token; or the name of a resource of the backend that holds
            them. They are not recorded.
        prefix: What the names of the tools begin with, for the model.
        tools: The names of the server's tools that the agent gets. Default: all.
        effect: What a second execution of a call would do (:data:`~durably.core.tools.Effect`): for all tools, or by
            the server's name of each. Default: ``"pure"`` for tools that say that they only read, ``"at_most_once"``
            for those that say that they are not idempotent, and else ``"idempotent"``.
        requires_approval: Whether each call needs approval; or the server's names of the tools that do.
        approval_timeout: How long to wait for approval. Default: no limit.
        retries: How often a failed call is repeated. Default: as often as the agent's other steps.
        timeout: How long one call may take. Default: no limit.
        idle: How long an unused connection is kept, in seconds.

    Raises:
        DefinitionError: If an option cannot work.
    """

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, str] | str | None = None,
        cwd: str | Path | None = None,
        headers: Mapping[str, str] | str | None = None,
        prefix: str = "",
        tools: Collection[str] | None = None,
        effect: Effect | Mapping[str, Effect] | None = None,
        requires_approval: bool | Collection[str] = False,
        approval_timeout: Duration | None = None,
        retries: int | None = None,
        timeout: Duration | None = None,
        idle: float = 60.0,
    ) -> None:
        check_tool_name(name)
        where = f"MCPServer {name!r}"
        self._name = name
        self._address = _address(where, command, url, env, cwd, headers)
        self._choice = Choice(
            prefix=prefix,
            tools=None if tools is None else frozenset(_names(where, "tools", tools)),
            effect=effect,
            requires_approval=(
                requires_approval
                if isinstance(requires_approval, bool)
                else frozenset(_names(where, "requires_approval", requires_approval))
            ),
            approval_timeout=_seconds(where, "approval_timeout", approval_timeout),
            retries=retries,
            timeout=_seconds(where, "timeout", timeout),
        )
        self._idle = idle
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"MCPServer({self._name!r}, {self._address})"

    @property
    def name(self) -> str:
        """See :attr:`~durably.core.Toolset.name`."""
        return self._name

    async def list_tools(self, run: RunContext) -> list[ListedTool]:
        """See :meth:`~durably.core.Toolset.list_tools`.

        Raises:
            ConnectionError: If the server cannot be reached; the step is retried.
            DefinitionError: If it lacks one of the agent's tools, or a tool has a name that no model accepts.
        """
        async with self._connection().using() as session:
            return listed(self.name, await session.tools(), self._choice)

    async def call_tool(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> str | ToolOutcome:
        """See :meth:`~durably.core.Toolset.call_tool`.

        Raises:
            ConnectionError: If the server cannot be reached, or went away; the step is retried.
        """
        if isinstance(arguments, str):
            return ToolOutcome(content=f"invalid arguments for {listed.name}: write one JSON object", is_error=True)
        name = listed.source_name or listed.name
        if listed.effect == "at_most_once":
            await self._check_connection()
        async with self._connection().using() as session:
            found = next((each for each in await session.tools() if each.name == name), None)
            if found is None:
                gone = f"{listed.name} is not there any more: the MCP server {self.name!r} has changed"
                logger.warning("%s (run %s)", gone, current_step().run_id)
                return ToolOutcome(content=gone, is_error=True)
            if found.input_schema != listed.parameters:
                logger.warning(
                    "the parameters of %s, of the MCP server %r, have changed since run %s listed them",
                    listed.name,
                    self.name,
                    current_step().run_id,
                )
            return outcome(await session.call(name, arguments, {IDEMPOTENCY_KEY: current_step().idempotency_key}))

    async def _check_connection(self) -> None:
        """Drop a connection that was lost unnoticed: what may run only once must not be spent on finding that out."""
        with suppress(ConnectionError):
            async with self._connection().using() as session:
                session.forget()
                await session.tools()

    async def aclose(self) -> None:
        """End the connection of this event loop. The next call makes a new one."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.aclose()

    def _connection(self) -> Connection:
        """The connection of this event loop; a new one in the place of one that has ended."""
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None or connection.ended:
            connection = Connection(self.name, self._address, self._idle, current_step().resources)
            self._connections[loop] = connection
        return connection


def _address(
    where: str,
    command: Sequence[str] | None,
    url: str | None,
    env: Mapping[str, str] | str | None,
    cwd: str | Path | None,
    headers: Mapping[str, str] | str | None,
) -> Address:
    if (command is None) is (url is None):
        raise DefinitionError(f"{where}: give it either command=['program', 'argument'] or url='https://...'")
    if url is not None:
        if env is not None or cwd is not None:
            raise DefinitionError(f"{where}: env= and cwd= are for a program, and this one has a url=")
        if not url.startswith(("http://", "https://")):
            raise DefinitionError(f"{where}: the url begins with http:// or https://, not {url!r}")
        return HTTPAddress(url, headers)
    if headers is not None:
        raise DefinitionError(f"{where}: headers= are for a url=, and this one is a program: use env=")
    if isinstance(command, str) or not command:
        raise DefinitionError(f"{where}: command is a list, such as ['python', 'server.py']")
    return StdioAddress(command[0], tuple(command[1:]), env, None if cwd is None else str(cwd))


def _names(where: str, option: str, names: Collection[str]) -> Collection[str]:
    if isinstance(names, str):
        raise DefinitionError(f"{where}: {option} is a list of names, such as [{names!r}]")
    return names


def _seconds(where: str, option: str, duration: Duration | None) -> float | None:
    try:
        return timeout_seconds(duration, f"{where}: {option}")
    except (TypeError, ValueError) as error:
        raise DefinitionError(str(error)) from None
