"""The agent's loop on temporalio alone, written by hand: two activities a turn, which carry the same values.

Without keys, checks, types, retries by rule, or anything of an agent: what Temporal itself costs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

SOON = timedelta(minutes=1)


@activity.defn
async def think(turn: int, turns: int, size: int) -> dict[str, Any]:
    """What a scripted model answers."""
    if turn == turns:
        parts: list[dict[str, Any]] = [{"type": "text", "text": "All looked up."}]
    else:
        arguments = {"order_id": str(turn), "size": size}
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
            said = await workflow.execute_activity(think, args=[turn, turns, size], start_to_close_timeout=SOON)
            part: dict[str, Any] = said["message"]["parts"][0]
            if part["type"] == "text":
                return str(part["text"])
            arguments = part["arguments"]
            await workflow.execute_activity(
                get_order, args=[arguments["order_id"], arguments["size"]], start_to_close_timeout=SOON
            )
        return ""


@asynccontextmanager
async def open_bare(client: Client, **options: Any) -> AsyncIterator[Any]:
    """A worker; yields what runs the agent on it and returns the run's id."""
    queue = uuid4().hex
    async with Worker(client, task_queue=queue, workflows=[Bare], activities=[think, get_order], **options):

        async def run(turns: int, size: int) -> str:
            run_id = uuid4().hex
            await client.execute_workflow(Bare.run, args=[turns, size], id=run_id, task_queue=queue)
            return run_id

        yield run
