"""The observer that tells OpenTelemetry of runs.

Owns when a span is made, its place, and the metrics. Does not own what it says (``gen_ai.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, set_span_in_context

from durably.core import Agent, Function, Observer
from durably.core.cause import Cause
from durably.core.errors import error_from_json
from durably.core.observer import AttemptFailed, RunEnded, RunStarted, StepBegan, StepEnded
from durably.telemetry.gen_ai import Description, describe_run, describe_step, error_type
from durably.telemetry.notes import Notes, StepNotes
from durably.telemetry.span_ids import asked_for, caller, span_context, traceparent

__all__ = ["OpenTelemetryObserver"]

logger = logging.getLogger("durably")

SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [4**power for power in range(14)]
"""The bounds of the buckets that the conventions advise."""


class OpenTelemetryObserver(Observer):
    """Makes a span for each run and each step, and counts the tokens and seconds of model calls.

    A span is made when its run or step ends, by the worker that ended it. Its ids are derived from the run id and the
    step key. An invoked run is a child of the step that invoked it. A run started by a program is a child of the
    program's span. The tracer provider needs :class:`~durably.telemetry.id_generator.RunIdGenerator`.

    Args:
        functions: The functions of the backend. For agents among them and their sub-agents, spans name the requested
            model, and their runs are ``invoke_agent`` spans.
        capture_content: Whether spans show inputs, outputs, answers, arguments and the messages of errors.
        tracer_provider: Where spans go; left out, the global one.
        meter_provider: Where metrics go; left out, the global one.
    """

    def __init__(
        self,
        functions: Iterable[Function[Any, Any]] = (),
        *,
        capture_content: bool = False,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._agents = _agents_of(functions)
        self._content = capture_content
        self._tracer = trace.get_tracer("durably", tracer_provider=tracer_provider)
        meter = metrics.get_meter("durably", meter_provider=meter_provider)
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self._notes = Notes()
        self._warned = False

    def run_started(self, event: RunStarted) -> None:
        notes = self._notes.run(event.run_id)
        notes.event = event.event
        notes.step("").started = event.at

    def traceparent(self, run_id: str, step: str, cause: Cause | None) -> str | None:
        here = span_context(run_id, step, cause) if run_id else trace.get_current_span().get_span_context()
        return traceparent(here)

    def step_began(self, event: StepBegan) -> AbstractContextManager[None]:
        notes = self._notes.run(event.run_id).step(event.step)
        if notes.started is None:
            notes.started = event.at
        return _within(event)

    def attempt_failed(self, event: AttemptFailed) -> None:
        self._notes.run(event.run_id).step(event.step).failed[event.attempt] = event

    def step_ended(self, event: StepEnded) -> None:
        notes = self._notes.run(event.run_id)
        said = describe_step(event, notes, self._agents.get(event.function), content=self._content)
        if said.is_model_call:
            self._count(said, event)
            notes.calls[event.step.rpartition("/")[0]] = said.answer.message.tool_calls if said.answer else []
        above = span_context(event.run_id, cause=event.cause)
        self._tell(said, event, notes.steps.pop(event.step, None), above, lost=range(1, event.attempt))

    def run_ended(self, event: RunEnded) -> None:
        notes = self._notes.close(event.run_id)
        said = describe_run(event, notes, self._agents.get(event.function), content=self._content)
        self._tell(said, event, notes.steps.get(""), caller(event.cause), lost=())

    def _tell(
        self,
        said: Description,
        event: StepEnded | RunEnded,
        notes: StepNotes | None,
        above: SpanContext | None,
        *,
        lost: Iterable[int],
    ) -> None:
        notes = notes or StepNotes()
        ids = span_context(event.run_id, getattr(event, "step", ""), event.cause)
        below = Context() if above is None else set_span_in_context(NonRecordingSpan(above), Context())
        started = event.at - event.took if notes.started is None else notes.started
        attributes = {name: value for name, value in said.attributes.items() if value is not None}
        with asked_for(ids):
            span = self._tracer.start_span(
                said.name, below, said.kind, attributes, links=said.links, start_time=_nanoseconds(started)
            )
        if span.is_recording() and span.get_span_context().span_id != ids.span_id:
            self._warn()
        for number in sorted({*lost, *notes.failed}):
            failed = notes.failed.get(number)
            at = started if failed is None else failed.at
            span.add_event(*self._attempt(number, failed), timestamp=_nanoseconds(at))
        if event.status == "failed":
            self._fail(span, event.error or {})
        span.end(_nanoseconds(max(event.at, started)))

    def _attempt(self, number: int, failed: AttemptFailed | None) -> tuple[str, dict[str, str | int]]:
        if failed is None:
            return "durably.attempt.lost", {"durably.attempt": number}
        said: dict[str, str | int] = {"durably.attempt": number, "error.type": error_type(failed.error)}
        if self._content:
            said["exception.message"] = str(error_from_json(failed.error))
        return "durably.attempt.failed", said

    def _fail(self, span: Span, error: dict[str, Any]) -> None:
        span.set_attribute("error.type", error_type(error))
        span.set_status(Status(StatusCode.ERROR, str(error_from_json(error)) if self._content else None))

    def _count(self, said: Description, event: StepEnded) -> None:
        names = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model")
        known = {name: value for name in names if (value := said.attributes.get(name)) is not None}
        failed = {"error.type": error_type(event.error)} if event.error else {}
        self._seconds.record(event.took, {**known, **failed})
        if said.answer is not None:
            usage = said.answer.usage
            self._tokens.record(usage.input_tokens, {**known, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, {**known, "gen_ai.token.type": "output"})

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "the spans of runs have random ids, so they do not nest and another worker cannot go on with a trace: "
                "make the provider with TracerProvider(id_generator=RunIdGenerator()), from "
                "durably.telemetry.id_generator, or set OTEL_PYTHON_ID_GENERATOR=durably"
            )


def _within(event: StepBegan) -> AbstractContextManager[Any]:
    """A block in which new spans stand below that of the step."""
    span = NonRecordingSpan(span_context(event.run_id, event.step, event.cause))
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def _agents_of(functions: Iterable[Function[Any, Any]]) -> dict[str, Agent]:
    found: dict[str, Function[Any, Any]] = {}
    left = list(functions)
    while left:
        function = left.pop()
        if function.id not in found:
            found[function.id] = function
            left.extend(function.uses)
    return {id: function for id, function in found.items() if isinstance(function, Agent)}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
