"""Holds the code of one workflow to its recorded history while it is replayed, and ends the run if it does not fit."""

from __future__ import annotations

from temporalio.bridge.proto.workflow_activation import RemoveFromCache, WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails

from durably.backends.temporal.code_change.failure_commands import FailureCommands
from durably.backends.temporal.code_change.history_replayer import HistoryReplayer, IssuedCommands
from durably.backends.temporal.code_change.recorded_history import RecordedHistory
from durably.backends.temporal.host import TemporalHost
from durably.core.errors import CrashLoopError

__all__ = ["CodeCheck"]

FRESH = 3
"""So many events has the history of a run whose first task has not been tried before."""


class CodeCheck:
    """The replay of one workflow's code, from its first activation on this worker to the last that is replayed.

    Args:
        instance: Runs the code.
        det: The workflow.
        host: The worker.
        fail: Whether a run whose code does not fit is failed; otherwise its tasks fail, and it waits for the code to
            come back.

    Attributes:
        passed: Whether the replay is over, and the code fits.
    """

    def __init__(
        self, instance: WorkflowInstance, det: WorkflowInstanceDetails, host: TemporalHost, fail: bool
    ) -> None:
        self.passed = False
        self._instance = instance
        self._det = det
        self._host = host
        self._fail = fail
        self._issued = IssuedCommands()
        self._begun = False
        self._history: RecordedHistory | None = None
        self._replayer: HistoryReplayer | None = None

    @property
    def failed(self) -> bool:
        """Whether the run is being ended without its code: the commands are not the code's any more."""
        return self._replayer is not None

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """Let the code do what is asked now, unless it does not fit.

        Raises:
            RuntimeError: If the task is to be tried again: the history is still being read, or the run waits for its
                code to come back.
        """
        if not self._begun:
            self._begin(act)
        if self._replayer is not None:
            return self._replayer.activate(act)
        completion = self._instance.activate(act)
        history = self._history
        if history is None:
            self.passed = True
            return completion
        if history.error is not None:
            self._replayer = self._replace(history)
            return self._replayer.activate(act)
        # Should a later task of this replay not fit, what was issued until then is not issued again.
        for command in completion.successful.commands:
            self._issued.note(command)
        if not act.is_replaying:
            history.end_replay()
            self._history = None
            self._host.histories.drop(act.run_id)
            self.passed = True
        return completion

    def evicted(self, job: RemoveFromCache) -> None:
        """The workflow leaves this worker's cache."""
        history, self._history = self._history, None
        if history is not None:
            run_id = self._det.info.run_id
            self._host.histories.drop(run_id)
            # What only Temporal's own check saw is told here, once; the next try of the task ends the run.
            if history.error is None and job.reason == RemoveFromCache.NONDETERMINISM:
                self._host.histories.note_mismatch(run_id, history.mismatch(job.message))

    def _begin(self, act: WorkflowActivation) -> None:
        if act.is_replaying or act.history_length > FRESH:
            history = self._host.histories.load(self._det.info.workflow_id, act.run_id)
            if history.closed:
                # Replayed to be looked at: it cannot end a second time.
                self._host.histories.drop(act.run_id)
            else:
                self._history = history
                history.error = history.given_up or history.error or self._crash_loop(history)
                if history.error is not None:
                    self._replayer = self._replace(history)
        self._begun = True

    def _crash_loop(self, history: RecordedHistory) -> CrashLoopError | None:
        """Whether the code kills its process again and again before it comes to the end of its task."""
        function = self._host.functions.get(self._det.info.workflow_type)
        crashes, since = history.lost_tasks.crashes_now, history.lost_tasks.since_when
        # One more than a closure in the task is allowed: the last one is for its step to fail.
        if function is None or crashes <= function.crash_limit + 1:
            return None
        return CrashLoopError(crashes=crashes, since=since)

    def _replace(self, history: RecordedHistory) -> HistoryReplayer:
        error = history.error
        assert error is not None  # that is why it is replaced
        if not (self._fail or isinstance(error, CrashLoopError)):
            self._host.histories.note_stuck(self._det.info.workflow_id, self._det.info.run_id, history, error)
            raise RuntimeError(f"the code of this run no longer fits its history, and waits for it to do: {error}")
        failure = FailureCommands(error, history.records, self._det, self._host)
        return HistoryReplayer(history.events, self._issued, failure)
