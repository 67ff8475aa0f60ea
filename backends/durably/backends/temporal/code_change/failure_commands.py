"""The end of a run that has failed: what its failure handler is told, and the commands of an end from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from temporalio.bridge.proto.child_workflow import ParentClosePolicy
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.worker import WorkflowInstanceDetails

from durably.backends.temporal.host import Host
from durably.backends.temporal.payloads import failure, raw
from durably.backends.temporal.singleton import slot_of
from durably.core import Event, Function, NonDeterminismError
from durably.core.functions import FailedRun
from durably.core.history import StepRecord
from durably.core.ids import derive_id

__all__ = ["Ending", "failed_event"]

LAST = 2**31
"""The number of the commands that come before the end of a run; all others have lower ones."""


def failed_event(function: Function[Any, Any], run_id: str, event: Event, error: dict[str, Any]) -> Event:
    """What the failure handler of a function is started with; its id is the handler's run id."""
    told = FailedRun(run_id=run_id, function=function.id, event=event, error=error)
    return Event("durably/function.failed", told.model_dump(mode="json"), id=derive_id("failure", run_id, ""))


class Ending:
    """The end of a run whose code cannot be asked any more.

    Args:
        error: Why it ends.
        records: The run's; the first one tells what started it.
        det: The workflow.
        host: The worker.
    """

    def __init__(
        self, error: NonDeterminismError, records: Sequence[StepRecord], det: WorkflowInstanceDetails, host: Host
    ) -> None:
        self._failure = failure(error, host.redactor)
        self._event = Event.model_validate_json(records[0].output or "")
        self._function = host.functions.get(det.info.workflow_type)
        self._det = det
        self._host = host

    def before(self) -> list[WorkflowCommand]:
        """What must have been done first: the failure handler is started, the singleton place is given back."""
        if self._function is None:
            return []
        return [*self._start_handler(self._function), *self._release(self._function)]

    def last(self) -> WorkflowCommand:
        """The failure itself."""
        command = WorkflowCommand()
        converter = self._det.failure_converter_class()
        converter.to_failure(
            self._failure, self._det.payload_converter_factory(), command.fail_workflow_execution.failure
        )
        return command

    def _start_handler(self, function: Function[Any, Any]) -> Iterator[WorkflowCommand]:
        if function.on_failure is None:
            return
        info = self._det.info
        told = failed_event(function, info.workflow_id, self._event, self._failure.details[0])
        command = WorkflowCommand()
        child = command.start_child_workflow_execution
        child.seq, child.workflow_id, child.workflow_type = LAST, told.id or "", function.on_failure.id
        child.namespace, child.task_queue = info.namespace, info.task_queue
        child.workflow_task_timeout.FromTimedelta(self._host.task_timeout)
        child.parent_close_policy = ParentClosePolicy.PARENT_CLOSE_POLICY_ABANDON
        child.input.append(raw(told.model_dump_json()).payload)
        yield command

    def _release(self, function: Function[Any, Any]) -> Iterator[WorkflowCommand]:
        slot = slot_of(self._host.hub_queue, function, self._event)
        if slot is None:
            return
        command = WorkflowCommand()
        signal = command.signal_external_workflow_execution
        signal.seq, signal.signal_name = LAST, "release"
        signal.workflow_execution.namespace = self._det.info.namespace
        signal.workflow_execution.workflow_id = slot
        signal.args.append(self._det.payload_converter_factory().to_payload(self._det.info.workflow_id))
        yield command
