"""The end of a run that has failed: what its failure handler is told, and the commands of an end from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.bridge.proto.child_workflow import ParentClosePolicy
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstanceDetails

from durably.backends.temporal.host import Host
from durably.backends.temporal.payloads import failure, raw
from durably.backends.temporal.singleton import slot_of
from durably.core import Event, Function, NonDeterminismError, StepRecord
from durably.core.function import FailedRun
from durably.core.ids import derive_id

__all__ = ["add_end", "failed_event"]

LAST = 2**31
"""The number of a command that ends a run; those before it have lower ones."""


def failed_event(function: Function[Any, Any], run_id: str, event: Event, error: dict[str, Any]) -> Event:
    """What the failure handler of a function is started with; its id is the handler's run id."""
    told = FailedRun(run_id=run_id, function=function.id, event=event, error=error)
    return Event("durably/function.failed", told.model_dump(mode="json"), id=derive_id("failure", run_id, ""))


def add_end(
    completion: WorkflowActivationCompletion,
    error: NonDeterminismError,
    records: Sequence[StepRecord],
    det: WorkflowInstanceDetails,
    host: Host,
) -> None:
    """Fail a run whose code cannot be asked any more: start its handler, give back its singleton place, and end it.

    Args:
        completion: Gets the commands.
        error: Why.
        records: The run's; the first one tells what started it.
        det: The workflow.
        host: The worker.
    """
    failed = failure(error, host.redactor)
    function = host.functions.get(det.info.workflow_type)
    if function is not None:
        event = Event.model_validate_json(records[0].output or "")
        _start_handler(completion, function, event, failed.details[0], det)
        slot = slot_of(host.hub_queue, function, event)
        if slot is not None:
            signal = completion.successful.commands.add().signal_external_workflow_execution
            signal.seq, signal.signal_name = LAST, "release"
            signal.workflow_execution.workflow_id = slot
            signal.args.append(det.payload_converter_factory().to_payload(det.info.workflow_id))
    command = completion.successful.commands.add().fail_workflow_execution
    converter = det.payload_converter_factory()
    det.failure_converter_class().to_failure(failed, converter, command.failure)


def _start_handler(
    completion: WorkflowActivationCompletion,
    function: Function[Any, Any],
    event: Event,
    error: dict[str, Any],
    det: WorkflowInstanceDetails,
) -> None:
    if function.on_failure is None:
        return
    told = failed_event(function, det.info.workflow_id, event, error)
    child = completion.successful.commands.add().start_child_workflow_execution
    child.seq, child.workflow_id, child.workflow_type = LAST, told.id or "", function.on_failure.id
    child.namespace, child.task_queue = det.info.namespace, det.info.task_queue
    child.parent_close_policy = ParentClosePolicy.PARENT_CLOSE_POLICY_ABANDON
    child.input.append(raw(told.model_dump_json()).payload)
