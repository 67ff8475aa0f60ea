"""Spans and metrics of runs for OpenTelemetry."""

try:
    import opentelemetry.trace  # noqa: F401
except ImportError as error:
    raise ImportError("durably.telemetry needs opentelemetry-api: pip install 'durably[otel]'") from error

from durably.telemetry.observer import OpenTelemetryObserver

__all__ = ["OpenTelemetryObserver"]
