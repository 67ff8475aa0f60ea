"""Inngest as the conformance suite sees it: the protocol harness, and a real server. Both outlive every app."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import inngest

from durably.backends.inngest import InngestBackend
from durably.backends.inngest.serving import App, serve_on_loopback
from durably.core import Backend, Event, Function, FunctionRef
from durably.core.run_view import RunView
from durably.testing.conformance import Subject
from durably.testing.inngest import InngestEngine

__all__ = ["EngineSubject", "ServerSubject"]


class EngineSubject(Subject):
    """The protocol harness, and apps that come and go.

    Args:
        hold: How long the code of a run may stay suspended between two requests.
    """

    patience = 120.0
    rings = True

    def __init__(self, hold: float = 60.0) -> None:
        super().__init__()
        self._due: dict[str, float] = {}
        self._hold = hold
        self.engine = InngestEngine()
        self.client = self.engine.client()

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        engine = self.engine
        backend = InngestBackend(
            self.client,
            list(functions),
            serve=engine.serve,
            now=engine.now,
            poll=0.001,
            grace=0.5,
            hold=self._hold,
            **options,
        )
        async with backend:
            yield backend

    def now(self, backend: Backend) -> float:
        return self.engine.now()

    async def expire(self, backend: Backend) -> None:
        self.engine.forget_calls()

    async def ring(self, backend: Backend, function: Function[Any, Any], *, again: bool) -> bool:
        due = self._due.get(function.id)
        if (due is None or due <= self.engine.now()) and again:
            due = self._due[function.id] = self.engine.now() + 60.0
            self.engine.timers.at(due, lambda: self.engine.fire(f"{self.client.app_id}-{function.id}"))
        if due is None or due <= self.engine.now():
            return True
        self.engine.advance()  # where nobody waits for anything any more, nothing else does
        return False

    def storage(self) -> bytes | None:
        return repr([(run.events, run.steps, run.output) for run in self.engine.runs.values()]).encode()

    @contextmanager
    def still(self, longest: float | None = None) -> Iterator[None]:
        self.engine.longest_jump = self.unit / 2 if longest is None else longest
        try:
            yield
        finally:
            self.engine.longest_jump = math.inf

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.001)
            self.engine.advance()  # a call that broke is made again after a while


class ServerSubject(Subject):
    """A dev server, and apps under one id that come and go.

    Args:
        address: The server's.
    """

    unit = 3.0
    patience = 300.0

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._lines: dict[Backend, _Line] = {}

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        client = inngest.Inngest(
            app_id=f"app-{self.token}",
            api_base_url=self._address,
            event_api_base_url=self._address,
            is_production=False,
        )
        line = _Line()
        backend = _Paced(client, list(functions), serve=line.serve, poll=0.02, grace=0.5, **options)
        self._lines[backend] = line
        async with backend:
            yield backend

    def now(self, backend: Backend) -> float:
        return time.time()

    async def expire(self, backend: Backend) -> None:
        self._lines[backend].cut()


class _Paced(InngestBackend):
    """Leaves time between events: those of one moment are taken in any order by the server."""

    _before: str | None = None

    async def send(self, *events: Event) -> list[str]:
        await self._pause()
        return await super().send(*events)

    async def start_run(
        self, function: FunctionRef[Any, Any], data: str, run_id: str | None, tags: Sequence[str] = ()
    ) -> RunView:
        await self._pause()
        view = await super().start_run(function, data, run_id, tags)
        self._before = view.id
        return view

    async def _pause(self) -> None:
        await asyncio.sleep(0.4)
        for _ in range(20):
            if self._before is None or (await self.view(self._before)).created_at:
                break
            await asyncio.sleep(0.1)


class _Line:
    """The connection to an app, which may break while the app goes on."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def serve(self, app: App) -> AsyncIterator[str]:
        async def wired(scope: Any, receive: Any, send: Any) -> None:
            cut = asyncio.get_running_loop().create_future()
            self._waiting.add(cut)
            task = asyncio.ensure_future(app(scope, receive, send))
            await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
            self._waiting.discard(cut)
            if not task.done():
                raise ConnectionResetError("the connection broke")
            task.result()

        async with serve_on_loopback(wired) as address:
            yield address

    def cut(self) -> None:
        """Break every connection that waits for an answer."""
        for cut in self._waiting:
            if not cut.done():
                cut.set_result(None)
