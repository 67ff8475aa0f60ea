"""The worker of the hubs of those who wait, beside that of the runs, in the same process.

A hub has tasks now and then, and a history of up to some thousand events. Among the runs of one worker, hubs would put
them out of its cache, and be put out: each would have its history read again for each event. So they have a task queue
and a cache of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from durably.backends.temporal.hub_names import queue_of_hubs
from durably.backends.temporal.wait_hub import WaitHub

__all__ = ["hub_worker"]

CACHED = 500
"""How many hubs a worker keeps in memory. One that it does not keep has its history read and replayed for each event.
An event name has 16 hubs, and 272 if more wait than those hold."""

AT_ONCE = 8
"""How many tasks of hubs one worker works on at once. Each tells runs what has come for them, then computes."""

SHARED = ("identity", "debug_mode", "sticky_queue_schedule_to_start_timeout")
"""What it does as the worker of the runs was told to."""


def hub_worker(
    client: Client, task_queue: str, options: Mapping[str, Any], activities: Sequence[Callable[..., Any]], **given: Any
) -> Worker:
    """The worker of the hubs that belong to a task queue.

    Args:
        client: The way to the server.
        task_queue: The task queue of the runs.
        options: What the worker of the runs was told, as ``temporalio.worker.Worker`` takes it.
        activities: What hubs do in this process.
        given: What is the same for both.
    """
    cached = min(CACHED, options.get("max_cached_workflows", CACHED))
    shared = {name: options[name] for name in SHARED if name in options}
    return Worker(
        client,
        task_queue=queue_of_hubs(task_queue),
        workflows=[WaitHub],
        activities=activities,
        no_remote_activities=True,
        max_cached_workflows=cached,
        # Without a cache, one at a time: the next one would put the hub out, and cut off what it is at.
        max_concurrent_workflow_tasks=AT_ONCE if cached else 1,
        **shared,
        **given,
    )
