"""What OpenTelemetry got of runs, collected in memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from durably.core import Function
from durably.telemetry import OpenTelemetryObserver
from durably.telemetry.id_generator import RunIdGenerator
from durably.telemetry.span_ids import span_context


class Collected:
    """The providers of a program, and what they exported."""

    def __init__(self) -> None:
        self.tracers = TracerProvider(id_generator=RunIdGenerator())
        self._exporter = InMemorySpanExporter()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    def observer(self, *functions: Function[Any, Any], capture_content: bool = False) -> OpenTelemetryObserver:
        """An observer as a worker makes it when it starts."""
        return OpenTelemetryObserver(
            functions, capture_content=capture_content, tracer_provider=self.tracers, meter_provider=self.meters
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.spans if span.name == name)
        return found

    @property
    def tokens(self) -> int:
        """Those of all spans together."""
        counts = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
        return sum(int(str(attributes(span).get(count, 0))) for span in self.spans for count in counts)

    def metric(self, name: str) -> list[HistogramDataPoint]:
        """The points of a histogram."""
        data = self._reader.get_metrics_data()
        scopes = [scope for each in (data.resource_metrics if data else ()) for scope in each.scope_metrics]
        found = [each for scope in scopes for each in scope.metrics if each.name == name]
        return [point for each in found for point in each.data.data_points if isinstance(point, HistogramDataPoint)]

    def outline(self) -> Counter[tuple[object, ...]]:
        """Each span as its name, its kind and its ids: what no crash may change."""
        return Counter((span.name, span.kind, *ids(span), span.status.status_code) for span in self.spans)


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int, int | None]:
    """Its trace, itself, and the span above it."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id, None if span.parent is None else span.parent.span_id


def derived(run_id: str, key: str = "") -> tuple[int, int]:
    """The trace and the span of a run that nobody called, or of a step of it."""
    context = span_context(run_id, key)
    return context.trace_id, context.span_id


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    """The traces and the spans that it is linked to."""
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def events(span: ReadableSpan) -> list[str]:
    return [event.name for event in span.events]
