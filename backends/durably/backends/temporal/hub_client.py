"""The way to hubs, for clients and activities: signals that wait while a hub has no room for them.

Temporal lets a workflow go on in a fresh history only in a moment in which no signal comes, and refuses the
ten-thousandth signal of a history. So a sender looks first, and holds off while the history is long: the hub finds its
moment, and nothing is refused. It holds off, too, while hubs as a whole are behind (`hub_pressure.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.hub_names import WAIT_HUB, queue_of_hubs
from durably.backends.temporal.hub_pressure import HubPressure, hubs_are_behind
from durably.backends.temporal.outbox import Outbox
from durably.backends.temporal.pauses import pauses
from durably.backends.temporal.system_workflows import SystemWorkflows
from durably.backends.temporal.wait_hub import BEGIN, LONG, Offer
from durably.backends.temporal.waiters import Waiter

__all__ = ["HubClient"]

LOOKS = 8
"""How many looks at one hub one process has under way."""

UNDER_WAY = 32
"""And how many requests to all hubs: more make a server that has much to do slower, and none of them quicker."""

LOOKED = 16
"""So many signals one process sends to a hub after a look at it: 6,000 more than `LONG` are allowed."""

KNOWN = 10_000
"""Of so many hubs a process remembers that it has looked at them."""

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
        self._outboxes: WeakValueDictionary[tuple[str, str], Outbox] = WeakValueDictionary()
        self._looked: dict[str, int] = {}

    async def is_there(self, hub: str) -> bool:
        """Wait until a hub has room for a signal; ``False`` at once if it is not there.

        One that was there a few signals ago counts as there: if it has ended since, nobody waited in it.
        """
        async with self._turn(hub, LOOKS):
            is_there = await self._has_room(hub)
        if is_there:
            await self._pressure.admit()
        return is_there

    def _turn(self, hub: str, at_once: int) -> asyncio.Semaphore:
        turn = self._turns.get(hub)
        if turn is None:
            turn = self._turns[hub] = asyncio.Semaphore(at_once)
        return turn

    async def tell(self, workflow_id: str, signal: str, *args: Any) -> None:
        """Signal a workflow, unless it has ended."""
        try:
            async with self._turn(ALL, UNDER_WAY):
                await self._client.get_workflow_handle(workflow_id).signal(signal, args=args)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            self._looked.pop(workflow_id, None)

    async def offer(self, hub: str, offer: Offer) -> None:
        """Tell a hub of an event, unless it has ended: nobody waits in it then."""
        await self._outbox(hub, "offer", partial(self.tell, hub, "offer")).add(offer)

    async def wait(self, hub: str, waiters: Sequence[Waiter]) -> None:
        """Tell a hub of those who wait; it is started if it is not there."""
        await self._pressure.admit()
        await self.is_there(hub)
        await self._outbox(hub, "wait", partial(self._open, hub)).add(waiters)

    async def _open(self, hub: str, lots: Sequence[Sequence[Waiter]]) -> None:
        waiters = [waiter for lot in lots for waiter in lot]
        async with self._turn(ALL, UNDER_WAY):
            await self._workflows.tell(WAIT_HUB, hub, "wait", waiters, begin=BEGIN)

    def _outbox(self, hub: str, signal: str, send: Callable[[Sequence[Any]], Awaitable[None]]) -> Outbox:
        outbox = self._outboxes.get((hub, signal))
        if outbox is None:
            outbox = self._outboxes[hub, signal] = Outbox(send)
        return outbox

    async def _has_room(self, hub: str) -> bool:
        left = self._looked.pop(hub, 0)
        if not left and not await self._look(hub):
            return False
        if left != 1:
            self._looked[hub] = (left or LOOKED) - 1
        if len(self._looked) > KNOWN:
            del self._looked[next(iter(self._looked))]
        return True

    async def _look(self, hub: str) -> bool:
        """Wait until a hub has room; whether it is there."""
        pause = pauses(SHORTEST_PAUSE, LONGEST_PAUSE)
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
            await asyncio.sleep(next(pause))
