"""Holding off while hubs are behind: senders that are quicker than the workers of hubs are slowed down to their pace.

A signal to a hub is taken at once, and its work comes later: without this, many senders to many hubs would pile it up
until the server has no time left for anything else. A program that now and then sends an event never asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

__all__ = ["HubPressure", "hubs_are_behind"]

MANY = 500
"""So many tasks of hubs that wait for a worker are too many."""

SIGNALS = 50
"""After so many signals of this process it is looked again."""

PAUSE = 0.5
"""Seconds between two looks while the hubs are behind."""


async def hubs_are_behind(client: Client, queue: str) -> bool:
    """Whether too many tasks of hubs wait, and workers are at it: where none is up, there is nothing to wait for.

    Args:
        client: The way to the server.
        queue: The task queue of the hubs.
    """
    asked = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        report_stats=True,
    )
    try:
        found = await client.workflow_service.describe_task_queue(asked)
    except RPCError as error:
        if error.status is RPCStatusCode.UNIMPLEMENTED:  # a server for tests
            return False
        raise
    return found.stats.approximate_backlog_count > MANY and found.stats.tasks_dispatch_rate > 0


class HubPressure:
    """Lets the signals of one process pass, or wait.

    Args:
        behind: Whether the hubs are behind.
    """

    def __init__(self, behind: Callable[[], Awaitable[bool]]) -> None:
        self._behind = behind
        self._signals = 0
        self._waiting: asyncio.Future[None] | None = None

    async def admit(self) -> None:
        """Wait until one more signal may be sent."""
        self._signals += 1
        if self._waiting is None and self._signals % SIGNALS:
            return
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._until_caught_up())
        await asyncio.shield(self._waiting)  # one looks for all

    async def _until_caught_up(self) -> None:
        try:
            while await self._behind():  # noqa: ASYNC110  # only the server knows
                await asyncio.sleep(PAUSE)
        finally:
            self._waiting = None
