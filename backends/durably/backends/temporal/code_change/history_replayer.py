"""Replays a history without the code that made it, to end a run whose code no longer fits.

A run can only be ended by a worker that has replayed it, command for command. The code cannot do that any more, so the
replayer repeats the commands that the history has, and then fails the run.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.child_workflow import ChildWorkflowCancellationType
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion

from durably.backends.temporal.code_change.failure_commands import FailureCommands
from durably.backends.temporal.payloads import LOCAL_ACTIVITY

__all__ = ["HistoryReplayer", "IssuedCommands"]

FIRST = 1_000_000
"""The numbers of the replayer's own commands begin here; those of the code before it are lower."""

NUMBERED = ("start_timer", "cancel_timer", "schedule_local_activity")
"""The commands whose numbers stand in the history."""

RESOLVED = {
    "start_child_workflow_execution": "resolve_child_workflow_execution_start",
    "signal_external_workflow_execution": "resolve_signal_external_workflow",
}
"""What Temporal says once such a command has taken place."""

MEMO = "modify_workflow_properties"
"""The command that changes a memo. It has no number, and takes place at once; no run changes its memo twice."""

Identity = tuple[str, str | int]


class IssuedCommands:
    """The commands that a run's code has issued, so that none is issued twice: the number of each."""

    def __init__(self) -> None:
        self._numbers: dict[Identity, int] = {}
        self._signals = count()

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._numbers

    def number(self, identity: Identity, otherwise: int) -> int:
        """The number that a command has; one that was not issued yet gets the other number."""
        return self._numbers.setdefault(identity, otherwise)

    def note(self, command: WorkflowCommand) -> int:
        """Take a command into account; its number."""
        kind = command.WhichOneof("variant") or ""
        issued: Any = getattr(command, kind)
        number: int = getattr(issued, "seq", 0)
        name: str | int = number
        if kind == "schedule_activity":
            name = issued.activity_id
        elif kind == "start_child_workflow_execution":
            name = issued.workflow_id
        elif kind == "signal_external_workflow_execution":
            # By place, not by number: Temporal does not write a signal's number into the history.
            name = next(self._signals)
        elif kind == "cancel_child_workflow_execution":
            name = issued.child_workflow_seq
        return self._numbers.setdefault((kind, name), number)


class HistoryReplayer:
    """Repeats a history, then ends the run.

    Args:
        events: The history.
        issued: What the code has done of it.
        failure: The commands that end the run.
    """

    def __init__(self, events: Sequence[HistoryEvent], issued: IssuedCommands, failure: FailureCommands) -> None:
        self._issued = issued
        self._failure = failure
        self._awaited: set[tuple[str, int]] | None = None
        self._resolved: set[tuple[str, int]] = set()
        self._numbers = count(FIRST)
        self._signals = count()
        self._scheduled: dict[int, str] = {}
        self._planned: deque[tuple[int, WorkflowCommand]] = deque()
        for event in events:
            self._plan(event)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """Do what the history says was done in this task, or end the run when there is no more of it."""
        completion = WorkflowActivationCompletion(run_id=act.run_id)
        completion.successful.SetInParent()
        queries = [job.query_workflow for job in act.jobs if job.HasField("query_workflow")]
        for query in queries:
            answer = completion.successful.commands.add().respond_to_query
            answer.query_id = query.query_id
            answer.failed.message = "the code of this run no longer fits its history"
        if queries:
            return completion
        for job in act.jobs:
            kind = str(job.WhichOneof("variant"))
            if kind in RESOLVED.values():
                self._resolved.add((kind, getattr(job, kind).seq))
        # What a task did stands in the history behind the event after the one that started it.
        while self._planned and self._planned[0][0] <= act.history_length + 1:
            completion.successful.commands.append(self._planned.popleft()[1])
        if not act.is_replaying:
            completion.successful.commands.extend(self._end())
        return completion

    def _end(self) -> Iterator[WorkflowCommand]:
        """What comes before the end, if it was not done yet, and when that has taken place, the end.

        In one task they would be lost: Temporal drops what a run asks for in the moment of its end.
        """
        if self._awaited is None:
            self._awaited = set()
            for command in self._failure.before():
                kind = command.WhichOneof("variant") or ""
                if kind == MEMO:
                    if (MEMO, 0) not in self._issued:
                        self._issued.note(command)
                        yield command
                    continue
                given = getattr(command, kind).seq
                number = self._issued.note(command)
                self._awaited.add((RESOLVED[kind], number))
                if number == given:
                    yield command
        if self._awaited <= self._resolved:
            yield self._failure.last()

    def _plan(self, event: HistoryEvent) -> None:
        """Keep the command that an event came from, unless it came from none or was issued already."""
        kind = (event.WhichOneof("attributes") or "").removesuffix("_event_attributes")
        attributes: Any = getattr(event, f"{kind}_event_attributes", None)
        identity = self._identify(kind, event.event_id, attributes)
        if identity is not None and identity not in self._issued:
            command = WorkflowCommand()
            self._fill(command, kind, attributes, self._issued.number(identity, self._number(identity)))
            self._planned.append((attributes.workflow_task_completed_event_id, command))

    def _number(self, identity: Identity) -> int:
        """The number of a command: Temporal gives it for timers and markers, for others it only has to be unused."""
        return identity[1] if isinstance(identity[1], int) and identity[0] in NUMBERED else next(self._numbers)

    def _identify(self, kind: str, event_id: int, attributes: Any) -> Identity | None:
        """The command behind an event, as :class:`IssuedCommands` knows it."""
        match kind:
            case "activity_task_scheduled":
                self._scheduled[event_id] = attributes.activity_id
                return "schedule_activity", attributes.activity_id
            case "activity_task_cancel_requested":
                return "request_cancel_activity", self._activity(attributes)
            case "marker_recorded" if attributes.marker_name == LOCAL_ACTIVITY:
                return "schedule_local_activity", _marker(attributes)["seq"]
            case "timer_started":
                return "start_timer", int(attributes.timer_id)
            case "timer_canceled":
                return "cancel_timer", int(attributes.timer_id)
            case "start_child_workflow_execution_initiated":
                return "start_child_workflow_execution", attributes.workflow_id
            case "request_cancel_external_workflow_execution_initiated":
                return "cancel_child_workflow_execution", self._child(attributes)
            case "signal_external_workflow_execution_initiated":
                return "signal_external_workflow_execution", next(self._signals)
            case "workflow_properties_modified":
                return MEMO, 0
            case _:
                return None

    def _activity(self, attributes: Any) -> int:
        return self._issued.number(("schedule_activity", self._scheduled[attributes.scheduled_event_id]), 0)

    def _child(self, attributes: Any) -> int:
        return self._issued.number(("start_child_workflow_execution", attributes.workflow_execution.workflow_id), 0)

    def _fill(self, command: WorkflowCommand, kind: str, attributes: Any, number: int) -> None:
        """Make a command so that it matches its event; what Temporal does not compare is left out."""
        match kind:
            case "activity_task_scheduled":
                activity = command.schedule_activity
                activity.seq, activity.activity_id, activity.activity_type = (
                    number,
                    attributes.activity_id,
                    attributes.activity_type.name,
                )
                activity.start_to_close_timeout.CopyFrom(attributes.start_to_close_timeout)
            case "activity_task_cancel_requested":
                command.request_cancel_activity.seq = self._activity(attributes)
            case "marker_recorded":
                data, local = _marker(attributes), command.schedule_local_activity
                local.seq, local.activity_id, local.activity_type = number, data["activity_id"], data["activity_type"]
                local.start_to_close_timeout.FromTimedelta(timedelta(days=1))
            case "timer_started":
                command.start_timer.seq = number
                command.start_timer.start_to_fire_timeout.CopyFrom(attributes.start_to_fire_timeout)
            case "timer_canceled":
                command.cancel_timer.seq = number
            case "start_child_workflow_execution_initiated":
                child = command.start_child_workflow_execution
                child.seq, child.workflow_id, child.workflow_type = (
                    number,
                    attributes.workflow_id,
                    attributes.workflow_type.name,
                )
                child.cancellation_type = ChildWorkflowCancellationType.TRY_CANCEL  # the code's; others make no command
            case "request_cancel_external_workflow_execution_initiated":
                command.cancel_child_workflow_execution.child_workflow_seq = self._child(attributes)
            case "signal_external_workflow_execution_initiated":
                signal = command.signal_external_workflow_execution
                signal.seq, signal.signal_name = number, attributes.signal_name
                signal.workflow_execution.workflow_id = attributes.workflow_execution.workflow_id
            case _:
                command.modify_workflow_properties.SetInParent()


def _marker(attributes: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(attributes.details["data"].payloads[0].data)
    return data
