"""What is done with runs that did not go well: taken up again, forked; and how it is seen that one is stuck."""

from __future__ import annotations

import json
import time
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from durably.backends.temporal.history.reader import HistoryReader, read_records
from durably.backends.temporal.host import TemporalHost
from durably.backends.temporal.payloads import payload
from durably.core import DurablyError
from durably.core.errors import RunNotFailedError
from durably.core.history import StepRecord
from durably.core.repair import Origin, cut_after
from durably.core.run_view import RunView
from durably.core.stuck import Stuck

__all__ = ["RunRepair"]


class RunRepair:
    """Takes up failed runs in fresh histories, and starts runs with the records of others.

    Args:
        client: The way to the server.
        host: Where functions are served.
    """

    def __init__(self, client: Client, host: TemporalHost) -> None:
        self._client = client
        self._host = host

    async def retry(self, view: RunView, history: str) -> None:
        """Take up a failed run again: in a fresh history, which begins with the records of the one that failed.

        Args:
            view: The run.
            history: Temporal's id of the history that failed.

        Raises:
            RunNotFailedError: If somebody else has taken it up.
        """
        records = await read_records(self._client, view.id, history)
        origin = {"continued": history, "failures": 0, "resumed": time.time()}
        try:
            await self._start(view, view.id, records, origin, WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY)
        except WorkflowAlreadyStartedError:
            raise RunNotFailedError(run_id=view.id, status="running") from None

    async def fork(self, view: RunView, history: str, after: str, new_id: str) -> str:
        """Start a run that begins with the records of another one; what started that, as JSON text.

        Args:
            view: The run it comes from.
            history: Temporal's id of that run's newest history.
            after: The key of the step where that is cut.
            new_id: The id of the new run.

        Raises:
            StepNotFoundError: If no such step has ended.
            DurablyError: If the id belongs to another run.
        """
        records = await read_records(self._client, view.id, history)
        source = {"run_id": view.id, "history": history, "cut": cut_after(records, after), "after": after}
        try:
            origin = {"forked": source, "at": time.time()}
            await self._start(view, new_id, records, origin, WorkflowIDReusePolicy.REJECT_DUPLICATE)
        except WorkflowAlreadyStartedError:
            known = await read_records(self._client, new_id)
            if known[0].input != Origin(view.id, after).to_json():
                raise DurablyError(
                    f"run {new_id!r} is there already, and is not this fork: choose another id"
                ) from None
        return records[0].output or ""

    async def _start(
        self,
        view: RunView,
        run_id: str,
        records: list[StepRecord],
        origin: dict[str, Any],
        reuse: WorkflowIDReusePolicy,
    ) -> None:
        await self._client.start_workflow(
            view.function,
            args=[payload(records[0].output or "null"), payload(json.dumps(origin))],
            id=run_id,
            task_queue=self._host.queues.get(view.function, self._host.task_queue),
            task_timeout=self._host.task_timeout,
            id_reuse_policy=reuse,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )

    async def stuck(self, run_id: str, history: str) -> Stuck | None:
        """What of the code does not fit a live run, or ``None`` if it is not stuck."""
        reader = HistoryReader(self._client.data_converter, run_id)
        async for event in self._client.get_workflow_handle(run_id, run_id=history).fetch_history_events():
            await reader.read(event)
        return reader.stuck
