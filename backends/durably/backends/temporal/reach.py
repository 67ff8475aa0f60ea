"""What is asked of a server that may not answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from durably.core.errors import EngineUnavailableError

__all__ = ["asks_server"]

M = TypeVar("M", bound=Callable[..., Coroutine[Any, Any, Any]])
"""A method: of the type that it had, as the two type checkers name the type of a coroutine differently."""

NO_ANSWER = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED)
"""What the SDK says of a server that it could not reach in several tries."""


BROKEN = ("transport error", "connection error", "h2 protocol error", "error reading a body", "operation was canceled")
"""What tonic, the SDK's gRPC client, says when a connection breaks in use; the status tells nothing then."""


def _is_no_answer(error: RPCError) -> bool:
    return error.status in NO_ANSWER or (
        error.status in (RPCStatusCode.UNKNOWN, RPCStatusCode.CANCELLED) and error.message.startswith(BROKEN)
    )


class _HasClient(Protocol):
    @property
    def client(self) -> Client: ...


def asks_server(method: M) -> M:
    """Let a method raise EngineUnavailableError where the server does not answer."""

    @wraps(method)
    async def ask(self: _HasClient, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return await method(self, *args, **kwargs)
        except RPCError as error:
            if not _is_no_answer(error):
                raise
            server = self.client.service_client.config.target_host
            raise EngineUnavailableError(server=server, reason=error.message) from error

    return cast(M, ask)
