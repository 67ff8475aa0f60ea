"""The steps of a trace, read from a run's records: first flat, each by its key, then as a tree.

Owns: what the records of one step say of it. Does not own: what a conversation adds (``trace_conversations.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from durably.core.approval import APPROVAL_GIVEN
from durably.core.error_spending import SPENT
from durably.core.history import StepRecord
from durably.core.model import Usage
from durably.core.run_events import child_id
from durably.core.trace_parts import Attempt, Payload, StepRole, StepStatus, TraceStep

__all__ = ["StepDraft", "attempts_of", "group_records", "is_digest", "is_model_answer", "payload", "tree"]


@dataclass(slots=True)
class StepDraft:
    """A step that is being read: its records, and what a conversation knows of it.

    Attributes:
        key: The step key.
        records: Its records, in order.
        value: Its recorded value as JSON data, once it is completed.
        call_id: The tool call that it belongs to, or ``None``.
        arguments: The arguments of that call as JSON text, if the step was given them.
    """

    key: str
    records: list[StepRecord] = field(default_factory=list)
    call_id: str | None = None
    arguments: str | None = None
    value: Any = None

    @property
    def first(self) -> StepRecord:
        return self.records[0]

    @property
    def last(self) -> StepRecord:
        return self.records[-1]

    @property
    def step_id(self) -> str:
        return self.first.step_id

    @property
    def scope(self) -> str:
        """What the keys of its branch begin with: ``"gather[0]/"``, or an empty text."""
        return self.key[: self.key.rfind("/") + 1]

    @property
    def completed(self) -> bool:
        return self.last.status == "completed"

    def finish(self, limit: int | None) -> TraceStep:
        """The step as a trace has it; texts longer than ``limit`` characters are cut."""
        last, value = self.last, self.value
        attempts = [] if self.first.kind in ("sleep", "wait_for_event", "invoke") else attempts_of(self.records)
        started, ended = self._times(attempts)
        # A call that failed tells with its error what an agent had spent.
        usage, cost = _spent(last.error.get(SPENT) if last.error and last.kind == "invoke" else value)
        is_answer = is_model_answer(value)
        return TraceStep(
            key=self.key,
            kind=last.kind,
            role=self._role(),
            status=_status(last),
            name=last.name,
            started_at=started,
            ended_at=ended,
            running=_running(attempts),
            waiting=_waiting(attempts, started, ended),
            due=None if last.final else last.due,
            attempts=attempts,
            input=self._input(limit),
            output=payload(last.output, limit) if last.final else None,
            error=last.error if last.final else None,
            usage=usage,
            cost=cost,
            model=value.get("model") if is_answer else None,
            stop_reason=_stop_reason(value) if is_answer else None,
            tool_calls=_calls(value) if is_answer else [],
            call_id=self.call_id,
            child=self._child() if last.kind == "invoke" else None,
            events=self._events(),
        )

    def _times(self, attempts: Sequence[Attempt]) -> tuple[float | None, float | None]:
        known = [each.started_at for each in attempts if each.started_at is not None]
        first = self.first.at if self.first.status == "started" else self.first.at - self.first.took
        return (min(known) if known else first or None), (self.last.at if self.last.final else None)

    def _role(self) -> StepRole:
        kind = self.last.kind
        if kind == "wait_for_event":
            return "approval" if self.last.name == APPROVAL_GIVEN else "wait"
        if kind == "invoke":
            return "child"
        if kind == "send_event":
            return "event"
        if kind == "sleep":
            return "wait"
        if is_model_answer(self.value) or self.step_id in ("think", "compact"):
            return "model"
        return "tool" if self.step_id.startswith("tool-") else "step"

    def _input(self, limit: int | None) -> Payload | None:
        if self.arguments is not None and is_digest(self.first.input):
            return payload(self.arguments, limit)
        found = payload(self.first.input, limit)
        return found.model_copy(update={"is_digest": True}) if found and is_digest(self.first.input) else found

    def _child(self) -> str:
        """The run that was started; the records of a fork still name that of the run it comes from."""
        begun = self.first
        named = json.loads(begun.output) if begun.status == "started" and begun.output else None
        return named if isinstance(named, str) else child_id(begun.run_id, self.key)

    def _events(self) -> list[str]:
        if self.last.kind == "send_event" and isinstance(self.value, list):
            return [str(each) for each in self.value]
        if self.last.kind == "wait_for_event" and isinstance(self.value, dict):
            return [str(self.value["id"])] if self.value.get("id") else []
        return []


def group_records(records: Iterable[StepRecord]) -> dict[str, StepDraft]:
    """The steps of a run by key, in the order in which they began."""
    steps: dict[str, StepDraft] = {}
    for record in records:
        if record.key:
            steps.setdefault(record.key, StepDraft(record.key)).records.append(record)
    for step in steps.values():
        if step.completed and step.last.output is not None:
            step.value = json.loads(step.last.output)
    return steps


def is_model_answer(value: Any) -> bool:
    """Whether a recorded value is an answer of a model, and not only the promise of one."""
    message = value.get("message") if isinstance(value, dict) and "submitted" not in value else None
    return isinstance(message, dict) and message.get("role") == "assistant" and isinstance(message.get("parts"), list)


def is_digest(input: str) -> bool:
    """Whether a record keeps only a digest of the arguments."""
    return input.startswith(("#", "~"))


def payload(text: str | None, limit: int | None) -> Payload | None:
    """A recorded text, cut to a limit; ``None`` for none."""
    if not text:
        return None
    return Payload(text=text if limit is None else text[:limit], size=len(text))


def attempts_of(records: Sequence[StepRecord]) -> list[Attempt]:
    """The attempts that the records of one step, or of the run itself, tell of, with those that are missing between."""
    attempts: list[Attempt] = []
    begun: StepRecord | None = None
    for record in records:
        _add_lost(attempts, record.attempt)
        if record.status == "started":
            begun = record
            continue
        started = begun.at if begun is not None else record.at - record.took
        outcome = "completed" if record.status == "completed" else "failed"
        attempts.append(
            Attempt(
                number=record.attempt,
                outcome=outcome,
                started_at=started or None,
                ended_at=record.at or None,
                error=record.error,
                next_at=record.due if record.status == "retrying" else None,
            )
        )
        begun = None
    if begun is not None:
        attempts.append(Attempt(number=begun.attempt, outcome="running", started_at=begun.at or None))
    return attempts


def _add_lost(attempts: list[Attempt], number: int) -> None:
    after = attempts[-1].number if attempts else 0
    attempts.extend(Attempt(number=missing, outcome="lost") for missing in range(after + 1, number))


def _status(last: StepRecord) -> StepStatus:
    if last.status == "started":
        return "running" if last.kind == "step" else "waiting"
    return "retrying" if last.status == "retrying" else "completed" if last.status == "completed" else "failed"


def _running(attempts: Sequence[Attempt]) -> float:
    return sum(
        each.ended_at - each.started_at
        for each in attempts
        if each.started_at is not None and each.ended_at is not None
    )


def _waiting(attempts: Sequence[Attempt], started: float | None, ended: float | None) -> float:
    if started is None or ended is None:
        return 0.0
    return max(0.0, ended - started - _running(attempts))


def _spent(value: Any) -> tuple[Usage | None, float | None]:
    """What a recorded answer, result or outcome says of tokens and cost."""
    if not isinstance(value, dict):
        return None, None
    usage = value.get("usage")
    if not isinstance(usage, dict):
        # An answer whose provider counted nothing leaves the usage out.
        return (Usage(), value.get("cost")) if is_model_answer(value) else (None, None)
    known = {name: count for name, count in usage.items() if name in Usage.model_fields and isinstance(count, int)}
    cost = value.get("cost")
    return Usage(**known), float(cost) if isinstance(cost, int | float) else None


def _calls(value: dict[str, Any]) -> list[str]:
    parts = value["message"].get("parts", [])
    return [str(part["id"]) for part in parts if isinstance(part, dict) and part.get("type") == "tool_call"]


def _stop_reason(value: dict[str, Any]) -> str:
    return str(value.get("stop_reason") or ("tool_calls" if _calls(value) else "end"))


# -- the tree


def tree(steps: Iterable[TraceStep]) -> list[TraceStep]:
    """Steps as their keys nest them: ``gather[0]/search`` stands in the branch ``gather[0]`` of ``gather``."""
    roots: list[_Node] = []
    nodes: dict[str, _Node] = {}
    for step in steps:
        _siblings(step.key[: step.key.rfind("/") + 1], nodes, roots).append(_Node(step))
    return [node.finish() for node in roots]


@dataclass(slots=True)
class _Node:
    step: TraceStep
    inside: list[_Node] = field(default_factory=list)

    def finish(self) -> TraceStep:
        if self.step.role != "group":
            return self.step
        steps = [node.finish() for node in self.inside]
        if self.step.kind == "gather":
            steps.sort(key=lambda branch: int(branch.key[branch.key.rindex("[") + 1 : -1]))
        starts = [each.started_at for each in steps if each.started_at is not None]
        ends = [each.ended_at for each in steps]
        return self.step.model_copy(
            update={
                "steps": steps,
                "status": _status_of_group(steps),
                "started_at": min(starts, default=None),
                "ended_at": None if None in ends else max((each for each in ends if each is not None), default=None),
            }
        )


def _siblings(prefix: str, nodes: dict[str, _Node], roots: list[_Node]) -> list[_Node]:
    """The list that a step with this prefix belongs in; the gathers and branches above it are made as they are met."""
    if not prefix:
        return roots
    branch_key = prefix[:-1]
    if branch_key not in nodes:
        gather_key = branch_key[: branch_key.rindex("[")]
        above = _siblings(gather_key[: gather_key.rfind("/") + 1], nodes, roots)
        if gather_key not in nodes:
            nodes[gather_key] = _Node(TraceStep(key=gather_key, kind="gather", role="group", status="running"))
            above.append(nodes[gather_key])
        nodes[branch_key] = _Node(TraceStep(key=branch_key, kind="branch", role="group", status="running"))
        nodes[gather_key].inside.append(nodes[branch_key])
    return nodes[branch_key].inside


def _status_of_group(steps: Sequence[TraceStep]) -> StepStatus:
    found = {step.status for step in steps}
    live: tuple[StepStatus, ...] = ("running", "retrying", "waiting")
    for status in live:
        if status in found:
            return status
    return "completed"
