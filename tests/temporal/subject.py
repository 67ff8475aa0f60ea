"""Temporal as the conformance suite sees it: a server that outlives every worker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Backend, Function
from durably.testing.conformance import Subject

__all__ = ["TemporalSubject"]

OPTIONS: dict[str, Any] = {
    "heartbeat": timedelta(seconds=1),
    "drain": timedelta(seconds=0.2),
}
WORKER: dict[str, Any] = {"sticky_queue_schedule_to_start_timeout": timedelta(seconds=1)}


class TemporalSubject(Subject):
    """A dev server and a task queue.

    Args:
        address: The server's.
        worker: Further options of the worker.
    """

    unit = 1.5
    patience = 50.0

    def __init__(self, address: str, **worker: Any) -> None:
        super().__init__()
        self._address = address
        self._worker = {**WORKER, **worker}

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        client = await Client.connect(self._address)
        backend = TemporalBackend(
            client,
            task_queue=f"conformance-{self.token}",
            functions=list(functions),
            worker_options=self._worker,
            **OPTIONS,
            **options,
        )
        async with backend:
            yield backend

    def now(self, backend: Backend) -> float:
        return time.time()
