"""The ids of spans: derived from run id and step key, so that every worker comes to the same.

Owns which trace a run is part of. A run that was called goes on with its caller's trace; any other has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from durably.core.cause import Cause
from durably.core.ids import derive_id

__all__ = ["asked_for", "asked_trace_id", "caller", "read_traceparent", "span_context", "take_span_id", "traceparent"]

_asked_for: ContextVar[SpanContext | None] = ContextVar("durably_span_ids", default=None)
_W3C = TraceContextTextMapPropagator()


def span_context(run_id: str, key: str = "", cause: Cause | None = None) -> SpanContext:
    """The ids of the span of a step; of the run itself, if no key is given. All spans of a run are of one trace.

    Args:
        run_id: The run.
        key: The step key.
        cause: What began the run.
    """
    above = caller(cause)
    trace_id = int(derive_id("trace", run_id, ""), 16) if above is None else above.trace_id
    flags = TraceFlags(TraceFlags.SAMPLED) if above is None else above.trace_flags
    span_id = int(derive_id("span", run_id, key)[:16], 16)
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags)


def caller(cause: Cause | None) -> SpanContext | None:
    """The span that called a run; ``None`` if nobody did, or nobody knows."""
    return read_traceparent(cause.traceparent) if cause is not None and cause.is_call else None


def read_traceparent(text: str | None) -> SpanContext | None:
    """The span that a W3C text stands for; ``None`` if it stands for none."""
    if text is None:
        return None
    found = get_current_span(_W3C.extract({"traceparent": text}, Context())).get_span_context()
    return found if found.is_valid else None


def traceparent(span: SpanContext) -> str | None:
    """The W3C text that stands for a span; ``None`` for one that is not valid."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(NonRecordingSpan(span), Context()))
    return carrier.get("traceparent")


@contextmanager
def asked_for(context: SpanContext) -> Iterator[None]:
    """Give the span that is started in this block these ids, if the provider's id generator asks for them."""
    token = _asked_for.set(context)
    try:
        yield
    finally:
        _asked_for.reset(token)


def take_span_id() -> int | None:
    """The id for the span that is being started, once; ``None`` if it is not of a run or a step."""
    context = _asked_for.get()
    _asked_for.set(None)
    return None if context is None else context.span_id


def asked_trace_id() -> int | None:
    """The trace that the span which is being started belongs to; ``None`` if it is not of a run or a step."""
    context = _asked_for.get()
    return None if context is None else context.trace_id
