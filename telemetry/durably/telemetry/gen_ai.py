"""What a span says, by the semantic conventions for generative AI. Owns the names of attributes, and no span."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import Link, SpanKind
from opentelemetry.util.types import AttributeValue

from durably.core import Agent, FallbackModel
from durably.core.cause import Cause
from durably.core.history import StepRecord
from durably.core.messages import TextPart, ToolCall
from durably.core.model import ModelResponse
from durably.core.observer import RunEnded, StepEnded
from durably.core.trace_parts import TraceStep
from durably.core.trace_steps import group_records
from durably.telemetry.notes import RunNotes
from durably.telemetry.span_ids import read_traceparent

__all__ = ["Description", "describe_run", "describe_step", "error_type"]

FINISH_REASONS = {"end": "stop", "tool_calls": "tool_call", "max_tokens": "length", "refusal": "content_filter"}
"""The conventions' words for :data:`durably.core.model.StopReason`; theirs has none for a pause."""

TOOL = "tool-"
"""What the ids of the steps begin with that run a tool, or ask a delegate."""


@dataclass(slots=True)
class Description:
    """What a span says.

    Attributes:
        name: Its name, of few different ones.
        kind: Its kind.
        attributes: Its attributes; ``None`` stands for one that is not known.
        links: What it is linked to.
        is_model_call: Whether it counts as a call of a model.
        answer: What the model answered, or ``None``.
    """

    name: str
    attributes: dict[str, AttributeValue | None]
    kind: SpanKind = SpanKind.INTERNAL
    links: list[Link] = field(default_factory=list)
    is_model_call: bool = False
    answer: ModelResponse | None = None


def describe_run(event: RunEnded, notes: RunNotes, agent: Agent | None, *, content: bool) -> Description:
    """What the span of a run says.

    Args:
        event: Its end.
        notes: What this worker knows of it.
        agent: Its agent, or ``None`` if another function ran.
        content: Whether to show what was said.
    """
    cause = event.cause or Cause()
    attributes: dict[str, AttributeValue | None] = {
        "durably.run.id": event.run_id,
        "durably.function": event.function,
        "durably.run.status": event.status,
        "durably.event.id": cause.event,
        "durably.event.name": cause.name or None,
    }
    if content:
        attributes["durably.run.input"] = _json(json.loads(notes.event).get("data")) if notes.event else None
        attributes["durably.run.output"] = event.output
    said = Description(f"run {event.function}", attributes)
    if agent is not None:
        said.name = f"invoke_agent {agent.name}"
        said.attributes |= {**_agent(agent, cause), "gen_ai.operation.name": "invoke_agent"}
    if event.cause is not None and not cause.is_call:
        _add_delivery(said, cause)
    return said


def _add_delivery(said: Description, cause: Cause) -> None:
    """Say that a run processes an event, by the conventions for messaging: linked to what sent it, not below it."""
    said.kind = SpanKind.CONSUMER
    said.attributes |= {
        "messaging.system": "durably",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": cause.name,
        "messaging.message.id": cause.event,
    }
    _link(said, cause.traceparent)


def _link(said: Description, traceparent: str | None) -> None:
    sender = read_traceparent(traceparent)
    if sender is not None:
        said.links.append(Link(sender))


def describe_step(event: StepEnded, notes: RunNotes, agent: Agent | None, *, content: bool) -> Description:
    """What the span of a step says. Arguments as for :func:`describe_run`."""
    step = _read(event)
    attributes: dict[str, AttributeValue | None] = {
        "durably.run.id": event.run_id,
        "durably.function": event.function,
        "durably.step.key": event.step,
        "durably.step.kind": event.kind,
        "durably.step.attempts": event.attempt,
        "durably.step.name": event.name or None,
    }
    said = Description(f"{event.kind} {step.step_id}", attributes)
    if step.role == "model":
        _add_model_call(said, event, step, agent, content=content)
    elif step.step_id.startswith(TOOL):
        call = notes.call_of(event.step, step.step_id.removeprefix(TOOL))
        _add_tool_call(said, event, step.step_id.removeprefix(TOOL), call, content=content)
    elif content:
        said.attributes["durably.step.output"] = event.output
    if "gen_ai.operation.name" in said.attributes:
        said.attributes |= _agent(agent, event.cause or Cause())
    if step.child is not None:
        said.attributes["durably.child.run.id"] = step.child
    if step.events:
        _add_events(said, event, step.events)
    return said


def _add_events(said: Description, event: StepEnded, ids: list[str]) -> None:
    """Say which events a step sent, or received."""
    sent = event.kind == "send_event"
    said.kind = SpanKind.PRODUCER if sent else SpanKind.CONSUMER
    said.attributes |= {
        "durably.event.ids": ids,
        "messaging.system": "durably",
        "messaging.operation.name": "send" if sent else "receive",
        "messaging.operation.type": "send" if sent else "receive",
        "messaging.destination.name": event.name or None,
    }
    if not sent:
        _link(said, json.loads(event.output or "null").get("traceparent"))


def error_type(error: Mapping[str, Any]) -> str:
    """The type of an error that is given as JSON data; of a step's error, that of its cause."""
    return str(error.get("error_type") or error.get("type") or "_OTHER")


def _read(event: StepEnded) -> TraceStep:
    """The step as a trace has it: what a step is for, and what it spent, is decided in one place."""
    record = StepRecord(
        event.run_id,
        0,
        event.step,
        event.kind,
        event.status,
        attempt=event.attempt,
        name=event.name,
        output=event.output,
        error=event.error,
        at=event.at,
        took=event.took,
    )
    return group_records([record])[event.step].finish(None)


def _agent(agent: Agent | None, cause: Cause) -> dict[str, AttributeValue | None]:
    name = None if agent is None else agent.name
    return {"gen_ai.agent.name": name, "gen_ai.conversation.id": cause.session_key}


def _add_model_call(
    said: Description, event: StepEnded, step: TraceStep, agent: Agent | None, *, content: bool
) -> None:
    said.kind, said.is_model_call = SpanKind.CLIENT, True
    provider, requested = _asked(agent, step)
    said.name = f"chat {requested}".rstrip()
    said.attributes |= {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider or None,
        "gen_ai.request.model": requested or None,
    }
    if event.status != "completed" or event.output is None:
        return
    answer = ModelResponse.model_validate_json(event.output)
    if answer.submitted is not None:  # the span of the step that fetches it says what it came to
        return
    said.answer = answer
    usage, reason = said.answer.usage, said.answer.stop_reason
    said.attributes |= {
        "gen_ai.response.model": said.answer.model,
        "gen_ai.response.finish_reasons": [FINISH_REASONS.get(reason, reason)],
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens or None,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens or None,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens or None,
        "durably.cost.usd": said.answer.cost,
    }
    if content:
        said.attributes["gen_ai.output.messages"] = _messages(said.answer)


def _asked(agent: Agent | None, step: TraceStep) -> tuple[str, str]:
    """The provider and the model that were asked first; empty texts if that is not known."""
    if agent is None:
        return "", ""
    model = agent.summarizer if step.step_id in ("compact", "fetch-summary") else agent.model
    provider, _, name = (model.models[0] if isinstance(model, FallbackModel) else model).name.partition(":")
    return provider, name or provider


def _add_tool_call(said: Description, event: StepEnded, tool: str, call: ToolCall | None, *, content: bool) -> None:
    said.name = f"execute_tool {tool}"
    said.attributes |= {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": None if call is None else call.id,
    }
    if content:
        said.attributes["gen_ai.tool.call.result"] = event.output
        said.attributes["gen_ai.tool.call.arguments"] = None if call is None else _json(call.arguments)


def _messages(answer: ModelResponse) -> str:
    parts: list[dict[str, Any]] = []
    for part in answer.message.parts:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "content": part.text})
        elif isinstance(part, ToolCall):
            parts.append({"type": "tool_call", "id": part.id, "name": part.name, "arguments": part.arguments})
    reason = FINISH_REASONS.get(answer.stop_reason, answer.stop_reason)
    return _json([{"role": "assistant", "parts": parts, "finish_reason": reason}])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
