"""The SDKs' clients: one for each key, address and event loop, instead of one for each call.

A client has the pool of connections, and making one loads the certificates of the machine: two hundred calls at once,
each with a client of its own, stop the event loop for seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["Clients"]

KEPT = 32
"""How many clients one event loop keeps. More are made where keys change often; those not in use are then closed."""


class Closable(Protocol):
    """A client of an SDK."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class _Open(Generic[C]):
    def __init__(self, client: C, keeper: AsyncGenerator[None, None]) -> None:
        self.client = client
        self.keeper = keeper
        self.calls = 0


class Clients(Generic[C]):
    """The open clients of one SDK. Each is closed with its event loop.

    Args:
        make: Makes a client for what identifies it.
    """

    def __init__(self, make: Callable[..., C]) -> None:
        self._make = make
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Hashable, ...], _Open[C]]]
        self._loops = WeakKeyDictionary()

    @asynccontextmanager
    async def client(self, *identity: Hashable) -> AsyncIterator[C]:
        """A client, for one call.

        Args:
            identity: What ``make`` is called with: the key, the address and so on.
        """
        clients = self._loops.setdefault(asyncio.get_running_loop(), {})
        found = clients.pop(identity, None)
        if found is None:
            made = self._make(*identity)
            found = _Open(made, _closing(made, clients, identity))
            await anext(found.keeper)
        clients[identity] = found  # at the end: the first one is the one that was not used for longest
        found.calls += 1
        try:
            yield found.client
        finally:
            found.calls -= 1
            if len(clients) > KEPT:
                for each in [each for each in clients.values() if not each.calls][: len(clients) - KEPT]:
                    await each.keeper.aclose()


async def _closing(
    client: Closable, clients: dict[tuple[Hashable, ...], Any], identity: tuple[Hashable, ...]
) -> AsyncGenerator[None, None]:
    """Closes a client at the end. An event loop ends the generators that were begun on it before it closes."""
    try:
        yield
    finally:
        clients.pop(identity, None)
        await client.close()
