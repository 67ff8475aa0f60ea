"""The commands that fail a run without its code: the failure handler, the singleton lock, the failure itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from temporalio.bridge.proto.child_workflow import ParentClosePolicy
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.worker import WorkflowInstanceDetails

from durably.backends.temporal.host import TemporalHost
from durably.backends.temporal.payloads import GIVEN_UP, failure, payload
from durably.backends.temporal.singleton import lock_id
from durably.core import DurablyError, Event, Function
from durably.core.cause import Cause
from durably.core.errors import CrashLoopError, error_to_json
from durably.core.history import StepRecord
from durably.core.run_events import failed_event

__all__ = ["FailureCommands"]

LAST = 2**31
"""The number of the commands that come before the end of a run; all others have lower ones."""


class FailureCommands:
    """The end of a run whose code cannot be asked any more.

    Args:
        error: Why it ends.
        records: The run's; the first one tells what started it.
        det: The workflow.
        host: The worker.
    """

    def __init__(
        self,
        error: DurablyError,
        records: Sequence[StepRecord],
        det: WorkflowInstanceDetails,
        host: TemporalHost,
    ) -> None:
        self._error = error
        self._failure = failure(error, host.environment.redactor)
        self._event = Event.model_validate_json(records[0].output or "")
        self._function = host.functions.get(det.info.workflow_type)
        self._was_retried = any(record.status == "resumed" for record in records)
        self._det = det
        self._host = host

    def before(self) -> list[WorkflowCommand]:
        """What must have been done first: the failure handler is started, the singleton lock is given back."""
        if self._function is None:
            return []
        return [*self._note(), *self._start_handler(self._function), *self._release(self._function)]

    def last(self) -> WorkflowCommand:
        """The failure itself."""
        command = WorkflowCommand()
        converter = self._det.failure_converter_class()
        converter.to_failure(
            self._failure, self._det.payload_converter_factory(), command.fail_workflow_execution.failure
        )
        return command

    def _note(self) -> Iterator[WorkflowCommand]:
        # Code that does not fit is seen again when it is replayed for the last task; crashes before this one are not.
        if isinstance(self._error, CrashLoopError):
            command = WorkflowCommand()
            memo = command.modify_workflow_properties.upserted_memo
            memo.fields[GIVEN_UP].CopyFrom(payload(json.dumps(error_to_json(self._error))).payload)
            yield command

    def _start_handler(self, function: Function[Any, Any]) -> Iterator[WorkflowCommand]:
        if function.on_failure is None or self._was_retried:  # it runs once for a run
            return
        info = self._det.info
        place = self._host.environment.observers.traceparent(info.workflow_id, "", Cause.of(self._event))
        event = failed_event(function, info.workflow_id, self._event, self._failure.details[0], place)
        command = WorkflowCommand()
        child = command.start_child_workflow_execution
        child.seq, child.workflow_id, child.workflow_type = LAST, event.id or "", function.on_failure.id
        child.namespace, child.task_queue = info.namespace, info.task_queue
        child.workflow_task_timeout.FromTimedelta(self._host.task_timeout)
        child.parent_close_policy = ParentClosePolicy.PARENT_CLOSE_POLICY_ABANDON
        child.input.append(payload(event.model_dump_json()).payload)
        yield command

    def _release(self, function: Function[Any, Any]) -> Iterator[WorkflowCommand]:
        lock = lock_id(self._host.hub_queue, function, self._event)
        if lock is None:
            return
        command = WorkflowCommand()
        signal = command.signal_external_workflow_execution
        signal.seq, signal.signal_name = LAST, "release"
        signal.workflow_execution.namespace = self._det.info.namespace
        signal.workflow_execution.workflow_id = lock
        signal.args.append(self._det.payload_converter_factory().to_payload(self._det.info.workflow_id))
        yield command
