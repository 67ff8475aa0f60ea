"""The ids of spans: derived from run id and step key, so that every worker comes to the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.trace import SpanContext, TraceFlags

from durably.core.ids import derive_id

__all__ = ["asked_for", "asked_trace_id", "span_context", "take_span_id"]

_asked_for: ContextVar[SpanContext | None] = ContextVar("durably_span_ids", default=None)


def span_context(run_id: str, key: str = "") -> SpanContext:
    """The ids of the span of a step; of the run itself, if no key is given. All spans of a run are of one trace."""
    trace_id = int(derive_id("trace", run_id, ""), 16)
    span_id = int(derive_id("span", run_id, key)[:16], 16)
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


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
