"""Temporal as the conformance suite sees it: a server that outlives every worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.backends.temporal.cron import CRON_CLOCK
from durably.core import Backend, Function
from durably.core.errors import RunNotFoundError
from durably.core.run_events import cron_run_id
from durably.testing.conformance import Subject
from tests.temporal.link import Link

__all__ = ["TemporalSubject"]

OPTIONS: dict[str, Any] = {
    "heartbeat": timedelta(seconds=1),
    "task_timeout": timedelta(seconds=3),
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
    rings = True
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
        self._rung: dict[str, list[datetime]] = {}

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
        handle, address = client.get_workflow_handle(self.run_id()), link.address
        while not any(  # noqa: ASYNC110  # the server says so only when asked
            each.workflow_task_started_event_attributes.identity not in ("", address)
            for each in (await handle.fetch_history()).events
        ):
            await asyncio.sleep(0.1)
        link.mend()

    async def ring(self, backend: Backend, function: Function[Any, Any], *, again: bool) -> bool:
        """Give the clock of the function another schedule, by which a moment has just gone by that it has not had."""
        assert isinstance(backend, TemporalBackend)
        assert function.cron is not None
        rung = self._rung.setdefault(function.id, [])
        done = not rung or await _has_run(backend, function.id, rung[-1])
        if done and again:
            rung.append(_moment(len(rung)))
        if done and not again:
            return True
        cron = replace(function.cron, schedule=f"{rung[-1].minute} {rung[-1].hour} 1 1 *")
        state = {"function": function.id, "cron": asdict(cron), "tick": True, "due": rung[-1].timestamp()}
        await backend.client.start_workflow(
            CRON_CLOCK,
            state,
            id=f"{CRON_CLOCK}/{backend.task_queue}/{function.id}",
            task_queue=backend.task_queue,
            start_signal="keep",
            start_signal_args=[state],
        )
        return False

    async def histories(self, run_id: str) -> int:
        client = await Client.connect(self._address)
        return len([each async for each in client.list_workflows(f"WorkflowId = '{run_id}'")])

    def now(self, backend: Backend) -> float:
        return time.time()


def _moment(number: int) -> datetime:
    """A minute of the last first of January."""
    now = datetime.now(UTC)
    this_year = datetime(now.year, 1, 1, number // 60, number % 60, tzinfo=UTC)
    return this_year if this_year < now else this_year.replace(year=now.year - 1)


async def _has_run(backend: Backend, function_id: str, moment: datetime) -> bool:
    """Whether the run of a moment was started."""
    try:
        await backend.run(cron_run_id(function_id, moment.isoformat()))
    except RunNotFoundError:
        return False
    return True
