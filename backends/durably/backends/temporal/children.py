"""Child runs: the workflow that a step invokes, and how it ended."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from durably.backends.temporal.commands import check_cancelled
from durably.backends.temporal.host import TemporalHost
from durably.backends.temporal.outcome import completed_status, failed_status
from durably.backends.temporal.payloads import payload, text_of
from durably.backends.temporal.run_info import INFO, run_memo
from durably.core import Event
from durably.core.run_view import RunView

__all__ = ["ChildRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRun:
    """A run that a step invokes.

    Attributes:
        id: The child.
        function: The id of its function.
        event: What starts it, as JSON text without secrets.
        key: The step key.
        asked: What a record of the step keeps of its arguments.
        timeout: Seconds the child may take, or ``None``.
    """

    id: str
    function: str
    event: str
    key: str
    asked: str
    timeout: float | None

    async def start(self, host: TemporalHost, failed: str | None = None) -> asyncio.Task[RawValue]:
        """Start it, or take it up again where it failed; its result comes from the handle.

        Args:
            host: The worker.
            failed: Temporal's id of the history in which it failed; ``None`` for a new child.
        """
        # This much tells the child nothing: a reader of the history finds there which step began it.
        origin: dict[str, Any] = {"key": self.key, "input": self.asked, "timeout": self.timeout}
        reuse = WorkflowIDReusePolicy.REJECT_DUPLICATE
        if failed is not None:
            origin |= {"continued": failed, "failures": 0, "resumed": workflow.time()}
            reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
        handle = await workflow.start_child_workflow(
            self.function,
            args=[payload(self.event), payload(json.dumps(origin))],
            id=self.id,
            memo=run_memo(Event.model_validate_json(self.event), root=_root()),
            task_queue=host.queues.get(self.function, host.task_queue),
            result_type=RawValue,
            task_timeout=host.task_timeout,
            id_reuse_policy=reuse,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
            cancellation_type=ChildWorkflowCancellationType.TRY_CANCEL,
        )
        # Looked at however this run ends, or asyncio would complain in the log that nobody did.
        handle.add_done_callback(_look_at)
        return handle

    async def wait(self, handle: asyncio.Task[RawValue]) -> bool:
        """Wait for its end; whether that came in time. Otherwise it is cancelled."""
        await workflow.wait([handle], timeout=self.timeout)
        if handle.done():
            return True
        handle.cancel()
        # The command that cancels the child is made only when the handle's task runs.
        await workflow.wait([handle])
        return False

    def view(self, handle: asyncio.Task[RawValue]) -> RunView:
        """How it ended.

        Raises:
            CancelSignal: If it was cancelled along with the run that waits for it.
        """
        try:
            value = handle.result()
        except ChildWorkflowError as error:
            check_cancelled()
            status, data = failed_status(error.cause)
            return RunView(id=self.id, function=self.function, status=status, error=data)
        return RunView(id=self.id, function=self.function, status=completed_status(value), output=text_of(value))


def _root() -> str:
    """The run at the top of the calls that led to this workflow; itself, if it is at the top."""
    info = workflow.memo_value(INFO, {})
    return str(info.get("root") or workflow.info().workflow_id)


def _look_at(handle: asyncio.Task[RawValue]) -> None:
    if not handle.cancelled():
        handle.exception()
