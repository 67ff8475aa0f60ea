"""The network guard: a test that reaches for the network by accident fails at once, and says how to script the call."""

from __future__ import annotations

import ipaddress
import socket
from types import TracebackType
from typing import Any, Self

from durably.core import DurablyError

__all__ = ["NetworkGuard", "UnscriptedCallError"]

_LOCAL_NAMES = ("localhost", "localhost.localdomain", "")


class UnscriptedCallError(DurablyError, AssertionError):
    """A test tried to connect to another machine. Never retried.

    Attributes:
        address: The address.
    """

    fields = ("address",)

    def __init__(self, *, address: str) -> None:
        super().__init__(
            f"this test tried to reach {address}: a model or a tool in it is not scripted. Give the agent "
            "model=ScriptedModel(...), or point its client at LLMServer; a fake may listen on localhost. Where a test "
            "really needs the network, run it with --durably-network-guard=off"
        )
        self.address = address


class NetworkGuard:
    """A context manager in which this process can open no connection to another machine.

    Attributes:
        refused: The refused connections, so that a test can fail even if the error was swallowed.
    """

    def __init__(self) -> None:
        self.refused: list[UnscriptedCallError] = []

    def __enter__(self) -> Self:
        self._before = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
        connect, connect_ex, getaddrinfo = self._before

        def guarded_connect(sock: socket.socket, address: Any) -> None:
            self._check(sock, address)
            connect(sock, address)

        def guarded_connect_ex(sock: socket.socket, address: Any) -> int:
            self._check(sock, address)
            return connect_ex(sock, address)

        def guarded_getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            if not _is_local(host):
                self._refuse(f"{_text(host)}:{_text(port)}")
            return getaddrinfo(host, port, *args, **options)

        self._set(guarded_connect, guarded_connect_ex, guarded_getaddrinfo)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set(*self._before)

    def _set(self, connect: Any, connect_ex: Any, getaddrinfo: Any) -> None:
        socket.socket.connect = connect  # type: ignore[method-assign]
        socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
        socket.getaddrinfo = getaddrinfo

    def _check(self, sock: socket.socket, address: Any) -> None:
        # Sockets of other families (a Unix socket of asyncio or a debugger) do not leave the machine.
        if sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            self._refuse(f"{address[0]}:{address[1]}")

    def _refuse(self, address: str) -> None:
        self.refused.append(UnscriptedCallError(address=address))
        raise self.refused[-1]


def _text(part: Any) -> str:
    return part.decode(errors="replace") if isinstance(part, bytes) else str(part)


def _is_local(host: Any) -> bool:
    name = _text("" if host is None else host)
    if name in _LOCAL_NAMES or name == socket.gethostname():
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
