"""A worker whose event loop is ended under it, as ``asyncio.run`` does to what its main function left behind."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Context, function
from durably.core.ids import new_id


@function("idle")
async def idle(ctx: Context[None]) -> str:
    return "done"


@pytest.mark.asyncio
@pytest.mark.timeout(120)
@pytest.mark.parametrize("stopping", [False, True])
async def test_a_worker_ends_when_all_tasks_are_cancelled_at_once(client: Client, stopping: bool) -> None:
    others = asyncio.all_tasks()

    async def work() -> None:
        async with TemporalBackend(client, task_queue=new_id(), functions=[idle]) as backend:
            assert await backend.invoke(idle) == "done"
            ready.set()
            await asyncio.Event().wait()

    ready = asyncio.Event()
    worker = asyncio.create_task(work())
    await ready.wait()
    if stopping:
        worker.cancel()
        await asyncio.sleep(0)  # it begins to stop
    left = asyncio.all_tasks() - others
    for task in left:
        task.cancel()
    done, _ = await asyncio.wait({worker}, timeout=30)
    assert done, "whoever stops it waits for ever"
    await asyncio.wait(left, timeout=30)
