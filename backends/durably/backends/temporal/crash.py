"""Dying as a process does, for the harness: nothing more is written, and Temporal has to find out by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from temporalio import activity
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import StorageDriverStoreContext
from temporalio.exceptions import ApplicationError
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.workflow import Info

__all__ = ["Crash", "MortalRunner"]


class Crash:
    """The end of one worker, once the harness has brought it about.

    Attributes:
        signal: What killed it, or ``None``.
        happened: Set from then on.
    """

    def __init__(self) -> None:
        self.signal: BaseException | None = None
        self.happened = asyncio.Event()
        self._activities: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def arm(self) -> None:
        """Remember the loop of the worker: a workflow runs in a thread of its own."""
        self._loop = asyncio.get_running_loop()

    def __call__(self, signal: BaseException) -> None:
        """Die of a signal."""
        if self.signal is None and self._loop is not None:
            self.signal = signal
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.happened.set()
        for task in list(self._activities):
            task.cancel()

    def enter(self) -> None:
        """An activity of this worker begins."""
        task = asyncio.current_task()
        if task is not None:
            self._activities.add(task)
            task.add_done_callback(self._activities.discard)

    def check(self) -> None:
        """End an activity of a dead worker without a word to the server."""
        if self.signal is not None:
            if activity.info().is_local:  # the workflow hears of it, but cannot tell
                raise ApplicationError("this worker has crashed", non_retryable=True)
            activity.raise_complete_async()


class MortalRunner(WorkflowRunner):
    """Runs workflows as another runner does, and writes nothing after a crash.

    Args:
        runner: The other runner.
        crash: The worker's end.
        contexts: Whether the client's converters want to know which step a payload belongs to. To find that out, the
            sandbox is entered for each payload, which took a tenth of a turn's time.
    """

    def __init__(self, runner: WorkflowRunner, crash: Crash, *, contexts: bool) -> None:
        self._runner = runner
        self._crash = crash
        self._contexts = contexts

    def prepare_workflow(self, defn: Any) -> None:
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _MortalInstance(self._runner.create_instance(det), self._crash, self._contexts)

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        self._runner.set_worker_level_failure_exception_types(types)


_NOWHERE = StorageDriverStoreContext(target=None)


class _MortalInstance(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance, crash: Crash, contexts: bool) -> None:
        self._instance = instance
        self._crash = crash
        self._contexts = contexts

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        completion = self._instance.activate(act)
        if self._crash.signal is not None and not any(job.HasField("remove_from_cache") for job in act.jobs):
            raise RuntimeError("this worker has crashed")
        return completion

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(command_info) if self._contexts else None

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info) if self._contexts else _NOWHERE
