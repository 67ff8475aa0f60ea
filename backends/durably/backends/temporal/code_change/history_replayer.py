"""Ends a run whose code no longer fits its history.

A run can only be ended by a worker that has replayed it, command for command. The code cannot do that any more, so a
stand-in does: it repeats the commands that the history has, and then fails the run.
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

from durably.backends.temporal.code_change.failure_commands import Ending

__all__ = ["Made", "StandIn"]

FIRST = 1_000_000
"""The numbers of a stand-in's own commands begin here; those of the code before it are lower."""

LOCAL = "core_local_activity"
"""The name of the marker that Temporal's workers write for a local activity."""

GIVEN = ("start_timer", "cancel_timer", "schedule_local_activity")
"""The commands whose numbers stand in the history."""

RESOLVED = {
    "start_child_workflow_execution": "resolve_child_workflow_execution_start",
    "signal_external_workflow_execution": "resolve_signal_external_workflow",
}
"""What Temporal says once such a command has taken place. It drops what a run asks for in the moment of its end."""

Identity = tuple[str, str | int]


class Made:
    """The commands that a run's code has made, so that none is made twice: the number of each."""

    def __init__(self) -> None:
        self._numbers: dict[Identity, int] = {}
        self._signals = count()

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._numbers

    def number(self, identity: Identity, otherwise: int) -> int:
        """The number that a command has; one that was not made yet gets the other number."""
        return self._numbers.setdefault(identity, otherwise)

    def note(self, command: WorkflowCommand) -> int:
        """Take a command into account; its number."""
        kind = command.WhichOneof("variant") or ""
        made: Any = getattr(command, kind)
        number: int = getattr(made, "seq", 0)
        name: str | int = number
        if kind == "schedule_activity":
            name = made.activity_id
        elif kind == "start_child_workflow_execution":
            name = made.workflow_id
        elif kind == "signal_external_workflow_execution":
            name = next(self._signals)
        elif kind == "cancel_child_workflow_execution":
            name = made.child_workflow_seq
        return self._numbers.setdefault((kind, name), number)


class StandIn:
    """Repeats a history, then ends the run.

    Args:
        events: The history.
        made: What the code has done of it.
        ending: The commands that end the run.
    """

    def __init__(self, events: Sequence[HistoryEvent], made: Made, ending: Ending) -> None:
        self._made = made
        self._ending = ending
        self._awaited: set[tuple[str, int]] | None = None
        self._resolved: set[tuple[str, int]] = set()
        self._numbers = count(FIRST)
        self._signals = count()
        self._scheduled: dict[int, str] = {}
        self._left: deque[tuple[int, WorkflowCommand]] = deque()
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
        while self._left and self._left[0][0] <= act.history_length + 1:
            completion.successful.commands.append(self._left.popleft()[1])
        if not act.is_replaying:
            completion.successful.commands.extend(self._end())
        return completion

    def _end(self) -> Iterator[WorkflowCommand]:
        """What comes before the end, if it was not done yet, and when that has taken place, the end."""
        if self._awaited is None:
            self._awaited = set()
            for command in self._ending.before():
                kind = command.WhichOneof("variant") or ""
                given = getattr(command, kind).seq
                number = self._made.note(command)
                self._awaited.add((RESOLVED[kind], number))
                if number == given:
                    yield command
        if self._awaited <= self._resolved:
            yield self._ending.last()

    def _plan(self, event: HistoryEvent) -> None:
        """Keep the command that an event came from, unless it came from none or was made already."""
        kind = (event.WhichOneof("attributes") or "").removesuffix("_event_attributes")
        said: Any = getattr(event, f"{kind}_event_attributes", None)
        identity = self._identify(kind, event.event_id, said)
        if identity is not None and identity not in self._made:
            command = WorkflowCommand()
            self._fill(command, kind, said, self._made.number(identity, self._number(identity)))
            self._left.append((said.workflow_task_completed_event_id, command))

    def _number(self, identity: Identity) -> int:
        """The number of a command: Temporal gives it for timers and markers, for others it only has to be unused."""
        return identity[1] if isinstance(identity[1], int) and identity[0] in GIVEN else next(self._numbers)

    def _identify(self, kind: str, event_id: int, said: Any) -> Identity | None:
        """The command behind an event, as :class:`Made` knows it."""
        match kind:
            case "activity_task_scheduled":
                self._scheduled[event_id] = said.activity_id
                return "schedule_activity", said.activity_id
            case "activity_task_cancel_requested":
                return "request_cancel_activity", self._activity(said)
            case "marker_recorded" if said.marker_name == LOCAL:
                return "schedule_local_activity", _marker(said)["seq"]
            case "timer_started":
                return "start_timer", int(said.timer_id)
            case "timer_canceled":
                return "cancel_timer", int(said.timer_id)
            case "start_child_workflow_execution_initiated":
                return "start_child_workflow_execution", said.workflow_id
            case "request_cancel_external_workflow_execution_initiated":
                return "cancel_child_workflow_execution", self._child(said)
            case "signal_external_workflow_execution_initiated":
                return "signal_external_workflow_execution", next(self._signals)
            case "workflow_properties_modified":
                return "modify_workflow_properties", 0
            case _:
                return None

    def _activity(self, said: Any) -> int:
        return self._made.number(("schedule_activity", self._scheduled[said.scheduled_event_id]), 0)

    def _child(self, said: Any) -> int:
        return self._made.number(("start_child_workflow_execution", said.workflow_execution.workflow_id), 0)

    def _fill(self, command: WorkflowCommand, kind: str, said: Any, number: int) -> None:
        """Make a command so that it matches its event; what Temporal does not compare is left out."""
        match kind:
            case "activity_task_scheduled":
                activity = command.schedule_activity
                activity.seq, activity.activity_id, activity.activity_type = (
                    number,
                    said.activity_id,
                    said.activity_type.name,
                )
                activity.start_to_close_timeout.CopyFrom(said.start_to_close_timeout)
            case "activity_task_cancel_requested":
                command.request_cancel_activity.seq = self._activity(said)
            case "marker_recorded":
                data, local = _marker(said), command.schedule_local_activity
                local.seq, local.activity_id, local.activity_type = number, data["activity_id"], data["activity_type"]
                local.start_to_close_timeout.FromTimedelta(timedelta(days=1))
            case "timer_started":
                command.start_timer.seq = number
                command.start_timer.start_to_fire_timeout.CopyFrom(said.start_to_fire_timeout)
            case "timer_canceled":
                command.cancel_timer.seq = number
            case "start_child_workflow_execution_initiated":
                child = command.start_child_workflow_execution
                child.seq, child.workflow_id, child.workflow_type = number, said.workflow_id, said.workflow_type.name
                child.cancellation_type = ChildWorkflowCancellationType.TRY_CANCEL  # the code's; others make no command
            case "request_cancel_external_workflow_execution_initiated":
                command.cancel_child_workflow_execution.child_workflow_seq = self._child(said)
            case "signal_external_workflow_execution_initiated":
                signal = command.signal_external_workflow_execution
                signal.seq, signal.signal_name = number, said.signal_name
                signal.workflow_execution.workflow_id = said.workflow_execution.workflow_id
            case _:
                command.modify_workflow_properties.SetInParent()


def _marker(said: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(said.details["data"].payloads[0].data)
    return data
