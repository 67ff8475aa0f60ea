"""A server that does not answer for a while: what is asked says so, and who waits for a run goes on waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import RetryConfig

from durably.backends.temporal import TemporalBackend
from durably.core import Context, Event, Run, function
from durably.core.errors import EngineUnavailableError
from durably.core.ids import new_id
from tests.temporal.link import Link

SOON = RetryConfig(max_elapsed_time_millis=400, max_retries=2)
"""How long the SDK tries by itself: ten seconds, if it is not told."""


@function("outage-waits")
async def waits(ctx: Context[None]) -> str:
    event = await ctx.step.wait_for_event("go", "outage/go")
    return "" if event is None else str(event.data)


ASKED: dict[str, Callable[[TemporalBackend, str], Awaitable[Any]]] = {
    "start": lambda backend, _: backend.start(waits, run_id=new_id()),
    "send": lambda backend, _: backend.send(Event("outage/go", "now")),
    "run": lambda backend, run: backend.run(run),
    "runs": lambda backend, _: backend.runs(),
    "history": lambda backend, run: backend.history(run),
    "workers": lambda backend, _: backend.workers(),
}


async def _events(run: Run[Any]) -> list[str]:
    return [type(item.event).__name__ async for item in run.stream()]


@pytest.mark.asyncio
async def test_a_wait_for_a_run_outlasts_an_outage_and_all_else_says_so(
    temporal_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = f"outage-{new_id()}"
    near = await Client.connect(temporal_address)
    async with Link(temporal_address) as link, TemporalBackend(near, functions=[waits], task_queue=queue) as worker:
        far = await Client.connect(link.address, retry_config=SOON)
        client = TemporalBackend(far, task_queue=queue)
        run = await client.start("outage-waits", run_id=new_id())
        result = asyncio.ensure_future(run.result())
        stream = asyncio.ensure_future(_events(run))
        await asyncio.sleep(0.1)
        link.cut()
        for name, ask in ASKED.items():
            with pytest.raises(EngineUnavailableError, match=link.address):
                print(name, await ask(client, run.id))
        while not any("waits until the server" in line for line in caplog.messages):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await worker.send(Event("outage/go", "now"))
        await (await worker.run(run.id)).ended()
        assert not result.done()
        link.mend()
        assert await result == "now"
        seen = await stream
        assert (seen[0], seen[-1], len(set(seen))) == ("RunStarted", "RunEnded", len(seen)), "each once"
    told = [record for record in caplog.records if "waits until the server" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING] * 2, "once of the result, once of the stream"
