"""The SDKs' clients: one for each key, address and event loop, instead of one for each call.

A client has the pool of connections, and making one loads the certificates of the machine: two hundred calls at once,
each with a client of its own, stop the event loop for seconds.

Owns: which client a call gets, and the key in it. Does not own: what is sent with it, which each provider does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from durably.providers.failures import Failures, raise_alone
from durably.providers.keys import Key

__all__ = ["Clients"]

NO_KEY = "none"
"""What stands for the key at a server without keys: the SDKs want one."""

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

    @asynccontextmanager
    async def for_call(
        self, key: Key | None, base_url: str | None, timeout: float, *, provider: str, model: str
    ) -> AsyncIterator[tuple[C, Failures]]:
        """A client with a model's key, for one call, and what makes the errors of that call.

        Args:
            key: The place of the key, or ``None`` for a server without keys.
            base_url: The address of another server.
            timeout: The client's timeout, in seconds.
            provider: The provider, as its errors name it.
            model: The model that is asked.

        Raises:
            ModelError: If there is no key.
        """
        try:
            found = SecretStr(NO_KEY) if key is None else key.find()
        except LookupError as error:
            raise_alone(Failures(provider, model).unusable(str(error)))
        if not isinstance(found, SecretStr):
            # The engine alone retries. A client that retried as well would multiply the attempts.
            own = found.with_options(max_retries=0, timeout=timeout)
            yield own, Failures(provider, model, own.api_key)
            return
        secret = found.get_secret_value()
        async with self.client(secret, base_url, timeout) as client:
            yield client, Failures(provider, model, None if key is None else secret)


async def _closing(
    client: Closable, clients: dict[tuple[Hashable, ...], Any], identity: tuple[Hashable, ...]
) -> AsyncGenerator[None, None]:
    """Closes a client at the end. An event loop ends the generators that were begun on it before it closes."""
    try:
        yield
    finally:
        clients.pop(identity, None)
        await client.close()
