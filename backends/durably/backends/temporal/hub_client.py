"""The way to hubs, for clients and activities: signals that wait while a hub has no room for them.

Temporal lets a workflow go on in a fresh history only in a moment in which no signal comes, and refuses the
ten-thousandth signal of a history. So a sender looks first, and holds off while the history is long: the hub finds its
moment, and nothing is refused. It holds off, too, while hubs as a whole are behind (`hub_pressure.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.hub_pressure import HubPressure, hubs_are_behind
from durably.backends.temporal.system_workflows import SystemWorkflows
from durably.backends.temporal.wait_hub import LONG, queue_of_hubs

__all__ = ["HubClient"]

AT_ONCE = 8
"""How many signals one process has under way to one hub: while a task of it runs, Temporal buffers about a hundred."""

UNDER_WAY = 32
"""And how many requests to all hubs: more make a server that has much to do slower, and none of them quicker."""

ALL = ""
"""In the place of a hub's id: all of them."""

SHORTEST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
"""Seconds between two looks at a hub without room."""


class HubClient:
    """Signals hubs.

    Args:
        client: The way to the server.
        queue: The task queue that the hubs belong to.
        task_timeout: After how long a task of theirs is given to another worker.
    """

    def __init__(self, client: Client, queue: str, task_timeout: timedelta) -> None:
        self._client = client
        self._queue = queue_of_hubs(queue)
        self._pressure = HubPressure(partial(hubs_are_behind, client, self._queue))
        self._workflows = SystemWorkflows(client, self._queue, task_timeout)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def room(self, hub: str) -> AsyncIterator[bool]:
        """Wait until a hub has room for a signal, which is to be sent within; ``False`` at once if it is not there."""
        async with self._turn(hub, AT_ONCE):
            is_there = await self._has_room(hub)
            if is_there:
                await self._pressure.admit()
            async with self._turn(ALL, UNDER_WAY):
                yield is_there

    def _turn(self, hub: str, at_once: int) -> asyncio.Semaphore:
        turn = self._turns.get(hub)
        if turn is None:
            turn = self._turns[hub] = asyncio.Semaphore(at_once)
        return turn

    async def tell(self, hub: str, signal: str, *args: Any) -> None:
        """Signal a hub that was there, and had room."""
        try:
            await self._client.get_workflow_handle(hub).signal(signal, args=args)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended meanwhile
                raise

    async def open(self, kind: str, hub: str, signal: str, *args: Any) -> None:
        """Signal a hub once it has room; it is started if it is not there."""
        await self._pressure.admit()
        async with self.room(hub):
            await self._workflows.tell(kind, hub, signal, *args, begin={})

    async def _has_room(self, hub: str) -> bool:
        pause = SHORTEST_PAUSE
        while True:
            try:
                async with self._turn(ALL, UNDER_WAY):
                    found = await self._client.get_workflow_handle(hub).describe()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return False
                raise
            if found.status is not WorkflowExecutionStatus.RUNNING:
                return False
            if found.history_length < LONG:
                return True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)
