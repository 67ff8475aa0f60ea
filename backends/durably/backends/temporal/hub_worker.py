"""The worker of the hubs of those who wait, beside that of the runs, in the same process.

Hubs are many: one for each thing that is waited for. A hub has two or three tasks, with long times between them, and a
short history. Among the runs of one worker, hubs would put them out of its cache, and each would have its history read
again, over and over, while it makes its waits known. So they have a task queue and a small cache of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from durably.backends.temporal.wait_hub import WaitHub, queue_of_hubs

__all__ = ["hub_worker"]

CACHED = 100
"""How many hubs a worker keeps in memory: those that have much to do."""

AT_ONCE = 4
"""How many tasks of hubs one worker works on at once. They only compute, and more of them would hold each other up."""

SHARED = ("identity", "debug_mode", "sticky_queue_schedule_to_start_timeout")
"""What it does as the worker of the runs was told to."""


def hub_worker(client: Client, task_queue: str, options: Mapping[str, Any], **given: Any) -> Worker:
    """The worker of the hubs that belong to a task queue.

    Args:
        client: The way to the server.
        task_queue: The task queue of the runs.
        options: What the worker of the runs was told, as ``temporalio.worker.Worker`` takes it.
        given: What is the same for both.
    """
    shared = {name: options[name] for name in SHARED if name in options}
    return Worker(
        client,
        task_queue=queue_of_hubs(task_queue),
        workflows=[WaitHub],
        max_cached_workflows=min(CACHED, options.get("max_cached_workflows", CACHED)),
        max_concurrent_workflow_tasks=AT_ONCE,
        **shared,
        **given,
    )
