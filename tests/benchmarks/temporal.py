"""An agent on Temporal beside temporalio alone: time a turn, and bytes of history.

The other side is a workflow written by hand with two activities a turn, one for the model and one for the tool, which
carry the same values and do nothing else. Same server, same process, one after the other.

Called as: python -m tests.benchmarks.temporal [TURNS ...]
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from durably.backends.temporal import TemporalBackend
from durably.core.ids import new_id
from tests.benchmarks.agent import MESSAGE, order_agent

SIZES = (200, 4_000)
TURNS = (10, 50, 100, 200)
SOON = timedelta(minutes=1)


@activity.defn
async def think(turn: int, turns: int) -> dict[str, Any]:
    """What a scripted model answers."""
    if turn == turns:
        parts: list[dict[str, Any]] = [{"type": "text", "text": "All looked up."}]
    else:
        arguments = {"order_id": str(turn)}
        parts = [{"type": "tool_call", "id": f"call_{turn}_0", "name": "get_order", "arguments": arguments}]
    usage = {"input_tokens": 10, "output_tokens": 5}
    return {"message": {"role": "assistant", "parts": parts}, "usage": usage, "stop_reason": "end"}


@activity.defn
async def get_order(order_id: str, size: int) -> str:
    """What the tool answers."""
    return "x" * size


@workflow.defn
class Bare:
    """The loop, and nothing around it."""

    @workflow.run
    async def run(self, turns: int, size: int) -> str:
        """Take so many turns, then answer."""
        for turn in range(turns + 1):
            said = await workflow.execute_activity(think, args=[turn, turns], start_to_close_timeout=SOON)
            part: dict[str, Any] = said["message"]["parts"][0]
            if part["type"] == "text":
                return str(part["text"])
            order = part["arguments"]["order_id"]
            await workflow.execute_activity(get_order, args=[order, size], start_to_close_timeout=SOON)
        return ""


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        seconds: From its start to its result.
        size: Bytes of its history.
    """

    seconds: float
    size: int


async def measure(client: Client, run_id: str, work: Callable[[], Awaitable[object]]) -> Measured:
    """Time a run, and ask the server for the size of its history."""
    started = time.perf_counter()
    await work()
    seconds = time.perf_counter() - started
    found = await client.get_workflow_handle(run_id).describe()
    return Measured(seconds, found.raw_description.workflow_execution_info.history_size_bytes)


async def run_bare(client: Client, turns: int, size: int) -> Measured:
    """The workflow written by hand."""
    queue, run_id = new_id(), new_id()
    worker = Worker(
        client,
        task_queue=queue,
        workflows=[Bare],
        activities=[think, get_order],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        return await measure(
            client,
            run_id,
            lambda: client.execute_workflow(Bare.run, args=[turns, size], id=run_id, task_queue=queue),
        )


async def run_durably(client: Client, turns: int, size: int) -> Measured:
    """The same agent on durably."""
    agent, run_id = order_agent(turns, size), new_id()
    async with TemporalBackend(client, task_queue=new_id(), functions=[agent]) as backend:
        return await measure(client, run_id, lambda: backend.invoke(agent, MESSAGE, run_id=run_id))


async def main(turns: list[int]) -> None:
    """Print a line for each length and size."""
    server = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sysconfig.get_path("scripts")) / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=["--dynamic-config-value", "history.transferProcessorMaxPollRPS=10000"],
    )
    async with server:
        await run_bare(server.client, 5, 10)
        await run_durably(server.client, 5, 10)
        print(" turns  result  bare ms  ours ms  times  bare kB  ours kB  times")
        for size in SIZES:
            for count in turns:
                bare = await run_bare(server.client, count, size)
                ours = await run_durably(server.client, count, size)
                print(
                    f"{count:>6} {size:>7} {1000 * bare.seconds / count:>8.1f} {1000 * ours.seconds / count:>8.1f} "
                    f"{ours.seconds / bare.seconds:>6.2f} {bare.size / 1000:>8.0f} {ours.size / 1000:>8.0f} "
                    f"{ours.size / bare.size:>6.2f}"
                )


if __name__ == "__main__":
    asyncio.run(main([int(each) for each in sys.argv[1:]] or list(TURNS)))
