"""How a worker runs a durable function's workflow: with its recording at hand when it takes one up in its middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.bridge.proto.workflow_activation import RemoveFromCache, WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.workflow import Info

from durably.backends.temporal.code_change.failure_commands import Ending
from durably.backends.temporal.code_change.history_replayer import Made, StandIn
from durably.backends.temporal.code_change.recorded_history import Recording
from durably.backends.temporal.host import Host

__all__ = ["RecordingRunner"]

FRESH = 3
"""So many events has the history of a run whose first task has not been tried before."""


class RecordingRunner(WorkflowRunner):
    """Runs workflows as another runner does, and ends those whose code no longer fits their history.

    Args:
        runner: The other runner.
        host: The worker.
        fail: Whether such a run is failed; otherwise its tasks fail, and it waits for the code to come back.
    """

    def __init__(self, runner: WorkflowRunner, host: Host, *, fail: bool) -> None:
        self._runner = runner
        self._host = host
        self._fail = fail

    def prepare_workflow(self, defn: Any) -> None:
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = self._runner.create_instance(det)
        if det.defn.name is not None:  # a workflow of the library's own
            return instance
        return _Replayed(instance, det, self._host, self._fail)

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        self._runner.set_worker_level_failure_exception_types(types)


class _Replayed(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance, det: WorkflowInstanceDetails, host: Host, fail: bool) -> None:
        self._instance = instance
        self._det = det
        self._host = host
        self._fail = fail
        self._made = Made()
        self._begun = False
        self._recording: Recording | None = None
        self._stand_in: StandIn | None = None

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        evicted = next((job.remove_from_cache for job in act.jobs if job.HasField("remove_from_cache")), None)
        if evicted is not None:
            self._leave(evicted)
            return self._instance.activate(act)
        if not self._begun:
            self._begin(act)
        if self._stand_in is not None:
            return self._stand_in.activate(act)
        completion = self._instance.activate(act)
        if self._recording is None:
            return completion
        if self._recording.error is not None:
            self._stand_in = self._replace(self._recording)
            return self._stand_in.activate(act)
        for command in completion.successful.commands:
            self._made.note(command)
        if not act.is_replaying:
            self._recording.release()
            self._recording = None
            self._host.recordings.drop(act.run_id)
        return completion

    def _begin(self, act: WorkflowActivation) -> None:
        if act.is_replaying or act.history_length > FRESH:
            recording = self._host.recordings.take_up(self._det.info.workflow_id, act.run_id)
            if recording.closed:
                self._host.recordings.drop(act.run_id)
            else:
                self._recording = recording
                if recording.error is not None:
                    self._stand_in = self._replace(recording)
        self._begun = True

    def _leave(self, evicted: RemoveFromCache) -> None:
        history = self._det.info.run_id
        recording, self._recording = self._recording, None
        if recording is not None:
            self._host.recordings.drop(history)
            if self._fail and recording.error is None and evicted.reason == RemoveFromCache.NONDETERMINISM:
                self._host.recordings.refuse(history, recording.refuse(evicted.message))

    def _replace(self, recording: Recording) -> StandIn:
        error = recording.error
        if not self._fail or error is None:
            raise RuntimeError(f"the code of this run no longer fits its history, and waits for it to do: {error}")
        return StandIn(recording.events, self._made, Ending(error, recording.records, self._det, self._host))

    # -- what Temporal asks about its commands: there is nothing to say of a stand-in's

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(None if self._stand_in else command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(None if self._stand_in else command_info)
