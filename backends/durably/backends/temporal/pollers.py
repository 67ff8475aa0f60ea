"""The workers of a task queue, as Temporal knows them: by the polls they make for tasks."""

from __future__ import annotations

import time

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from durably.core.worker_view import WorkerView

__all__ = ["live_pollers"]

POLL_SECONDS = 70.0
"""A worker that lives polls again within a minute; its last poll is remembered for some minutes after its end."""

TYPES = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)


async def live_pollers(client: Client, task_queue: str) -> list[WorkerView]:
    """The workers that have polled a task queue for workflows or activities in the last minute, by their identities."""
    newest: dict[str, PollerInfo] = {}
    for kind in TYPES:
        answer = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=kind
            )
        )
        for each in answer.pollers:
            known = newest.get(each.identity)
            if known is None or _seen(each) > _seen(known):
                newest[each.identity] = each
    now = time.time()
    return [_view(each) for _, each in sorted(newest.items()) if _seen(each) + POLL_SECONDS > now]


def _view(poller: PollerInfo) -> WorkerView:
    # Unless it is given another one, a worker's identity is its process and its host: 4242@web-1.
    pid, _, host = poller.identity.partition("@")
    is_usual = pid.isdigit() and bool(host)
    return WorkerView(
        id=poller.identity,
        name=poller.identity,
        host=host if is_usual else "",
        pid=int(pid) if is_usual else None,
        version=poller.deployment_options.build_id or poller.worker_version_capabilities.build_id or None,
        lease_until=_seen(poller) + POLL_SECONDS,
    )


def _seen(poller: PollerInfo) -> float:
    return poller.last_access_time.seconds + poller.last_access_time.nanos / 1e9
