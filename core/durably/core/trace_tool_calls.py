"""What became of the tool calls of one answer, read from the steps that followed it.

Owns: which steps belong to a call, and what its result says. Does not own: the words of approvals and of delegates,
which come from ``approval.py`` and ``delegation.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from durably.core.agent import start_event
from durably.core.approval import verdict_of
from durably.core.delegation import started_text
from durably.core.durable_tools import delegated_outcome
from durably.core.errors import error_from_json
from durably.core.events import Event
from durably.core.messages import ToolCall
from durably.core.result import AgentResult
from durably.core.serialization import encode_input, same_input
from durably.core.tools import ToolOutcome, ToolResult, told_first, what_was_run
from durably.core.trace_parts import TraceEntry
from durably.core.trace_steps import StepDraft, is_digest

__all__ = ["NOT_RECORDED", "Item", "Scopes", "is_refusal", "tool_results"]

NOT_RECORDED = "(not recorded: the code itself said this, without a step)"

Item = StepDraft | str
"""What a scope met: a step, or the key of a ``gather``."""

Scopes = Mapping[str, list[Item]]
"""What each scope met, in order, by what the keys of its steps begin with."""


def is_refusal(value: object) -> bool:
    """Whether the value of a step is a hook's no."""
    return isinstance(value, dict) and value.get("type") == "refusal" and "reason" in value


def tool_results(
    calls: Sequence[ToolCall], since: Sequence[Item], scopes: Scopes, *, goes_on: bool
) -> list[TraceEntry]:
    """Return the results of the calls of one answer, as far as there are any.

    Args:
        calls: The calls.
        since: What the loop's scope met between the answer and the next model call.
        scopes: What each scope of the run met.
        goes_on: Whether the next model call was made, so that every call had its result.
    """
    entries: list[TraceEntry] = []
    for call, items in zip(calls, _by_call(calls, since, scopes), strict=True):
        found = _Answered(call, scopes).read(items)
        if found is None and goes_on:
            # An unknown tool, or arguments that its schema refuses: the loop answered at once.
            found = "", ToolOutcome(content=NOT_RECORDED, is_error=True)
        if found is not None:
            entries.append(_entry(call, *found))
    return entries


def _entry(call: ToolCall, step: str, outcome: str | ToolOutcome) -> TraceEntry:
    outcome = ToolOutcome(content=outcome) if isinstance(outcome, str) else outcome
    return TraceEntry(step=step, message=outcome.message(call), recorded=outcome.content != NOT_RECORDED)


def _by_call(calls: Sequence[ToolCall], since: Sequence[Item], scopes: Scopes) -> list[Sequence[Item]]:
    """The steps of each call. Those of several calls stand in the branches of one ``gather``."""
    if len(calls) == 1:
        return [since]
    gather = next((item for item in since if isinstance(item, str)), None)
    return [scopes.get(f"{gather}[{index}]/", ()) for index in range(len(calls))]


def _returned(step: StepDraft) -> str | ToolOutcome:
    """What a durable function returned, or a step of the user's own that has the name of a tool's."""
    value: Any = step.value
    try:
        return ToolResult.model_validate(value).outcome()
    except ValidationError:
        return value if isinstance(value, str) else step.last.output or ""


class _Answered:
    """Reads the steps of one call.

    Args:
        call: The call.
        scopes: What each scope of the run met.
    """

    def __init__(self, call: ToolCall, scopes: Scopes) -> None:
        self._call = call
        self._scopes = scopes
        self._ts: float | None = None
        self._edited = ""
        self._before, self._after = f"before-tool-{call.name}", f"after-tool-{call.name}"

    def read(self, items: Sequence[Item]) -> tuple[str, str | ToolOutcome] | None:
        """The key of the step that came to the result, and the result; ``None`` if there is none yet."""
        found = None
        for item in items:
            if isinstance(item, StepDraft) and item.step_id in (self._before, self._after):
                found = self._hook(item) or found
            elif found is None:
                found = self._approval(item) if isinstance(item, str) else self._step(item)
        return found

    def _hook(self, step: StepDraft) -> tuple[str, str | ToolOutcome] | None:
        """What a hook put in the place of the result, if it did."""
        step.call_id = self._call.id
        if is_refusal(step.value):
            return step.key, ToolOutcome(content=str(step.value["reason"]), is_error=True)
        if step.step_id != self._after or not step.value:
            return None
        return step.key, step.value if isinstance(step.value, str) else ToolOutcome.model_validate(step.value)

    def _step(self, step: StepDraft) -> tuple[str, str | ToolOutcome] | None:
        name = self._call.name
        if step.step_id not in (f"request-{name}", f"when-{name}", f"tool-{name}"):
            return None
        self._mark(step)
        if not step.last.final:
            return None
        if step.last.error is not None:
            return step.key, ToolOutcome(content=self._edited + str(error_from_json(step.last.error)), is_error=True)
        if step.step_id == f"tool-{name}":
            return step.key, told_first(self._edited, self._result(step))
        if isinstance(step.value, dict) and step.value.get("complaint"):
            return step.key, ToolOutcome(content=str(step.value["complaint"]), is_error=True)
        if isinstance(step.value, dict) and "content" in step.value:
            return step.key, ToolOutcome.model_validate(step.value)  # a time that could not be read
        self._ts = step.value if isinstance(step.value, float | int) else None
        return None

    def _result(self, step: StepDraft) -> str | ToolOutcome:
        value: Any = step.value
        try:
            if step.last.kind == "invoke":
                return delegated_outcome(step.last.name, AgentResult.model_validate(value))
            if step.last.kind == "send_event":
                return started_text(self._agent(step), str(value[0]), self._ts)
            return value if isinstance(value, str) else ToolOutcome.model_validate(value)
        except ValidationError:
            return _returned(step)

    def _approval(self, gather: str) -> tuple[str, str | ToolOutcome] | None:
        """The answer of a person, if it is a refusal; the question and the wait stand in two branches."""
        waits = [step for index in (0, 1) for step in self._scopes.get(f"{gather}[{index}]/", ())]
        refused: tuple[str, str | ToolOutcome] | None = None
        for step in waits:
            if isinstance(step, str) or step.step_id not in (f"approve-{self._call.name}", f"ask-{self._call.name}"):
                continue
            self._mark(step)
            if step.last.kind == "wait_for_event" and step.completed:
                answer = None if step.value is None else Event.model_validate(step.value)
                verdict = verdict_of(self._call.name, answer)
                if verdict.arguments is not None:
                    self._edited = what_was_run(self._call.name, verdict.arguments)
                if verdict.refusal is not None:
                    refused = step.key, ToolOutcome(content=verdict.refusal, is_error=True)
        return refused

    def _mark(self, step: StepDraft) -> None:
        step.call_id = self._call.id
        if is_digest(step.first.input) and same_input(
            step.first.input, encode_input((self._call.arguments,), step=step.key)
        ):
            step.arguments = json.dumps(self._call.arguments, ensure_ascii=False, separators=(",", ":"))

    def _agent(self, step: StepDraft) -> str:
        """The agent that an event starts, by the event's name, or by the tool's where only a digest is recorded."""
        text = step.first.input
        if not is_digest(text):
            return str(json.loads(text)["name"]).removeprefix(start_event(""))
        return self._call.name.removeprefix("start_").removeprefix("schedule_")
