"""Workflows of the library's own, for clients and activities: a signal to one, which is started if it is not there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client

__all__ = ["SystemWorkflows"]


@dataclass(frozen=True)
class SystemWorkflows:
    """Signals workflows of the library's own: hubs, crons and singleton locks.

    Args:
        client: The way to the server.
        queue: Their task queue.
        task_timeout: After how long a task of theirs is given to another worker.
    """

    client: Client
    queue: str
    task_timeout: timedelta

    async def tell(self, kind: str, workflow_id: str, signal: str, *args: Any, begin: Any) -> None:
        """Signal a workflow; it is started if it is not there.

        Args:
            kind: Its type.
            workflow_id: Its id.
            signal: The name of the signal.
            args: What the signal brings.
            begin: What a new one begins with.
        """
        await self.client.start_workflow(
            kind,
            begin,
            id=workflow_id,
            task_queue=self.queue,
            task_timeout=self.task_timeout,
            start_signal=signal,
            start_signal_args=args,
        )
