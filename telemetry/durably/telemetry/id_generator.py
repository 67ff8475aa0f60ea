"""The id generator for the SDK's tracer provider. It needs opentelemetry-sdk; the rest of this package does not."""

from __future__ import annotations

try:
    from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
except ImportError as error:
    raise ImportError("RunIdGenerator needs the SDK of OpenTelemetry: pip install opentelemetry-sdk") from error

from durably.telemetry.span_ids import asked_trace_id, take_span_id

__all__ = ["RunIdGenerator"]


class RunIdGenerator(IdGenerator):
    """Gives the spans of runs and steps the ids that are derived from them, and other spans those of another generator.

    Args:
        others: Makes the ids of all other spans. Left out, they are random.
    """

    def __init__(self, others: IdGenerator | None = None) -> None:
        self._others = others or RandomIdGenerator()

    def generate_trace_id(self) -> int:
        """A trace id, not 0."""
        derived = asked_trace_id()
        return self._others.generate_trace_id() if derived is None else derived

    def generate_span_id(self) -> int:
        """A span id, not 0."""
        derived = take_span_id()
        return self._others.generate_span_id() if derived is None else derived
