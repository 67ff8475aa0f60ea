"""Inngest as the conformance suite sees it: the engine outlives every app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from durably.backends.inngest import InngestBackend
from durably.core import Backend, Function
from durably.testing.conformance import Subject
from durably.testing.inngest import InngestEngine

__all__ = ["EngineSubject"]


class EngineSubject(Subject):
    """The protocol harness, and apps that come and go."""

    patience = 40.0

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.engine = InngestEngine(**options)
        self.client = self.engine.client()

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        engine = self.engine
        backend = InngestBackend(
            self.client, list(functions), serve=engine.serve, now=engine.now, poll=0.001, grace=0.5, **options
        )
        async with backend:
            yield backend

    def now(self, backend: Backend) -> float:
        return self.engine.now()

    async def expire(self, backend: Backend) -> None:
        self.engine.forget_calls()

    def storage(self) -> bytes | None:
        return repr([(run.events, run.steps, run.output) for run in self.engine.runs.values()]).encode()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.001)
            self.engine.advance()  # a call that broke is made again after a while
