"""How a worker runs workflows: with their code checked where it is replayed, and with nothing written after a crash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.bridge.proto.workflow_activation import RemoveFromCache, WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.workflow import Info

from durably.backends.temporal.code_change.code_check import CodeCheck
from durably.backends.temporal.crash import CRASHED
from durably.backends.temporal.host import TemporalHost

__all__ = ["CheckedRunner"]


TASK_DONE = (RemoveFromCache.CACHE_FULL, RemoveFromCache.WORKFLOW_EXECUTION_ENDING)
"""Why a workflow leaves the cache that is at no task: for other reasons its task is done again."""


class CheckedRunner(WorkflowRunner):
    """Runs workflows as another runner does, and checks what it says before the server hears of it.

    Args:
        runner: The other runner.
        host: The worker.
        fail: Whether a run whose code no longer fits is failed; otherwise its tasks fail, and it waits.
        contexts: Whether the client's converters want to know which step a payload belongs to. To find that out, the
            sandbox is entered for each payload, which took a tenth of a turn's time.
    """

    def __init__(self, runner: WorkflowRunner, host: TemporalHost, *, fail: bool, contexts: bool) -> None:
        self._runner = runner
        self._host = host
        self._fail = fail
        self._contexts = contexts

    def prepare_workflow(self, defn: Any) -> None:
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = self._runner.create_instance(det)
        # A workflow that has a name is one of the library's own: its code changes with the library.
        function = self._host.functions.get(det.info.workflow_type)
        fail = self._fail and (function is None or function.on_code_change == "fail")
        check = CodeCheck(instance, det, self._host, fail) if det.defn.name is None else None
        return _CheckedInstance(instance, self._host, check, self._contexts)

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        self._runner.set_worker_level_failure_exception_types(types)


_NOWHERE = StorageDriverStoreContext(target=None)


class _CheckedInstance(WorkflowInstance):
    """One workflow in this worker's cache."""

    def __init__(self, instance: WorkflowInstance, host: TemporalHost, check: CodeCheck | None, contexts: bool) -> None:
        self._instance = instance
        self._host = host
        self._check = check
        self._contexts = contexts

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        evicted = next((job.remove_from_cache for job in act.jobs if job.HasField("remove_from_cache")), None)
        if evicted is not None:
            if self._check is not None:
                self._check.evicted(evicted)
            if evicted.reason in TASK_DONE:
                self._host.histories.forget(act.run_id)
            return self._evict(act)
        completion = self._activate(act)
        crashed = self._host.crash.signal is not None
        if self._host.untold:
            self._host.tell(act.run_id, done=completion.HasField("successful") and not crashed)
        # An eviction is let through above: without it the SDK could not let go of the workflow, and never end.
        if crashed:
            raise RuntimeError(CRASHED)
        return completion

    def _evict(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        # The SDK cancels the code's tasks now, which must not look as if the code did.
        self._host.evicting.add(act.run_id)
        try:
            return self._instance.activate(act)
        finally:
            self._host.evicting.discard(act.run_id)
            self._host.tell(act.run_id, done=False)

    def _activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        if self._check is None:
            return self._instance.activate(act)
        completion = self._check.activate(act)
        if self._check.passed:
            self._check = None
        return completion

    # -- what Temporal asks about the commands: there is nothing to say of one that is not the code's

    @property
    def _ended(self) -> bool:
        return self._check is not None and self._check.failed

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()

    def get_serialization_context(self, command_info: Any) -> Any:
        return (
            self._instance.get_serialization_context(None if self._ended else command_info) if self._contexts else None
        )

    def get_external_store_context(self, command_info: Any) -> Any:
        if not self._contexts:
            return _NOWHERE
        return self._instance.get_external_store_context(None if self._ended else command_info)
