"""Temporal as the conformance suite sees it: a server that outlives every worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Backend, Function
from durably.testing.conformance import Subject
from tests.temporal.link import Link

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
    # So many events are in a history as soon as its first step has ended.
    short_histories: Mapping[str, Any] | None = {"continue_after": 4}
    gaps: Mapping[str, str] = {
        "test_c08_a_worker_that_wakes_after_its_lease_begins_no_body": "a worker of which only the connection was cut "
        "does not know it; one that was stopped does (tests/temporal/test_crash_loops.py)",
        "test_c22_the_rule_holds_for_starts_by_a_worker_that_serves_something_else": "a start goes by the "
        "functions that its backend was given",
        "test_c32_an_event_before_the_first_worker_starts_its_function_once": "an event goes to the functions that "
        "workers have registered by then, and is kept for nobody else",
    }

    def __init__(self, address: str, **worker: Any) -> None:
        super().__init__()
        self._address = address
        self._links: dict[Backend, Link] = {}
        self._mending: asyncio.Task[None] | None = None
        self._worker = {**WORKER, **worker}

    @asynccontextmanager
    async def open(self, functions: Iterable[Function[Any, Any]], **options: Any) -> AsyncIterator[Backend]:
        async with Link(self._address) as link:
            # A name of its own tells the server's record of who began a task which worker that was.
            client = await Client.connect(link.address, identity=link.address)
            backend = TemporalBackend(
                client,
                task_queue=f"conformance-{self.token}",
                functions=list(functions),
                worker_options=self._worker,
                **OPTIONS,
                **options,
            )
            self._links[backend] = link
            async with backend:
                yield backend

    async def expire(self, backend: Backend) -> None:
        """Cut the worker off until the server has given what it was at to another one."""
        link = self._links[backend]
        link.cut()
        client = await Client.connect(self._address)
        self._mending = asyncio.create_task(self._mend(link, client))

    async def _mend(self, link: Link, client: Client) -> None:
        handle = client.get_workflow_handle(self.run_id())
        while not any(  # noqa: ASYNC110  # the server says so only when asked
            each.workflow_task_started_event_attributes.identity not in ("", link.address)
            for each in (await handle.fetch_history()).events
        ):
            await asyncio.sleep(0.1)
        link.mend()

    async def histories(self, run_id: str) -> int:
        client = await Client.connect(self._address)
        return len([each async for each in client.list_workflows(f"WorkflowId = '{run_id}'")])

    def now(self, backend: Backend) -> float:
        return time.time()
