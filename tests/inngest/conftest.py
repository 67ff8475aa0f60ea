"""A protocol harness for each test, backends on it, and a real server where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from durably.backends.inngest import InngestBackend
from durably.core import Function
from durably.testing.inngest import InngestEngine
from tests.inngest.server import NO_SERVER, running_server

T = TypeVar("T")

OpenInngest = Callable[..., InngestBackend]


async def to_its_end(engine: InngestEngine, check: Coroutine[Any, Any, T]) -> T:
    """Let the engine's time go on until something is done; what it gave."""
    checking = asyncio.ensure_future(check)
    while not checking.done():
        await engine.rest()
        if not engine.advance():
            await asyncio.sleep(0)
    return await checking


@pytest.fixture
def engine() -> InngestEngine:
    return InngestEngine(backoff=1.0)


@pytest.fixture
def open_inngest(engine: InngestEngine) -> OpenInngest:
    """Makes a backend whose app the engine calls over ASGI."""

    def open_one(*functions: Function[Any, Any], **options: Any) -> InngestBackend:
        return InngestBackend(
            engine.client(), functions, serve=engine.serve, now=engine.now, poll=0.001, grace=0.5, **options
        )

    return open_one


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    with running_server(tmp_path_factory.mktemp("inngest")) as address:
        yield address


@pytest.fixture
def server(running: str | None) -> str:
    """The address of a running dev server."""
    if running is None:
        pytest.skip(NO_SERVER)
    return running
