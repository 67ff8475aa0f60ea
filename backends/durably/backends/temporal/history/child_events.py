"""Child runs in a history: what the steps that invoked them came to."""

from __future__ import annotations

import json
from typing import Any

from temporalio.api.history.v1 import HistoryEvent

from durably.backends.temporal.history.payload_reader import PayloadReader
from durably.backends.temporal.history.record_list import RecordList
from durably.backends.temporal.outcome import completed_status, failed_status
from durably.backends.temporal.payloads import text_of
from durably.core.errors import error_to_json
from durably.core.run import invoke_error
from durably.core.run_view import RunStatus, RunView
from durably.core.step_errors import invoke_timeout

__all__ = ["ChildEvents"]


class ChildEvents:
    """Reads the events of child workflows. Each method is named after the kind of event it reads.

    Args:
        records: Where records are put.
        payloads: Reads what the client encoded.
    """

    def __init__(self, records: RecordList, payloads: PayloadReader) -> None:
        self._list = records
        self._payloads = payloads
        self._timeouts: dict[str, float | None] = {}
        self._cancelled = False

    async def workflow_execution_cancel_requested(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self._cancelled = True

    async def start_child_workflow_execution_initiated(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        payloads = await self._payloads.read(attributes.input.payloads)
        if len(payloads) > 1:  # a failure handler, which is no step, has one
            origin = json.loads(text_of(payloads[1]))
            key, timeout = origin["key"], origin["timeout"]
            begun = self._list.new(
                key,
                "invoke",
                "started",
                at,
                input=origin["input"],
                name=attributes.workflow_type.name,
                output=json.dumps(attributes.workflow_id),
                due=None if timeout is None else at + timeout,
            )
            self._timeouts[attributes.workflow_id] = timeout
            self._list.begin(f"child {attributes.workflow_id}", begun)
            self._list.append(begun)

    async def child_workflow_execution_completed(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        [value] = await self._payloads.read(attributes.result.payloads)
        self._child_ended(attributes, at, completed_status(value), output=text_of(value))

    async def child_workflow_execution_failed(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        status, error = failed_status(await self._payloads.read_failure(attributes.failure))
        self._child_ended(attributes, at, status, error=error)

    async def child_workflow_execution_canceled(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self._child_ended(attributes, at, RunStatus.CANCELLED)

    async def child_workflow_execution_terminated(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self._child_ended(attributes, at, RunStatus.CANCELLED)

    async def request_cancel_external_workflow_execution_initiated(
        self, event: HistoryEvent, attributes: Any, at: float
    ) -> None:
        child = attributes.workflow_execution.workflow_id
        begun = self._list.end(f"child {child}")
        if begun is not None and not self._cancelled:  # by its timeout, that is, and not with the run
            error = invoke_timeout(begun.key, begun.name, self._timeouts[child])
            self._list.settle(begun, at, error=error_to_json(error))

    def _child_ended(
        self,
        attributes: Any,
        at: float,
        status: RunStatus,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        child = attributes.workflow_execution.workflow_id
        begun = self._list.end(f"child {child}")
        if begun is None:
            return
        if status is RunStatus.COMPLETED:
            self._list.settle(begun, at, output=output)
        else:
            view = RunView(id=child, function=begun.name, status=status, error=error)
            self._list.settle(begun, at, error=error_to_json(invoke_error(view, step=begun.key)))
