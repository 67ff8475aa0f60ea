"""Lists of runs: pages in the order of their starts, out of a server that orders them in another way.

Temporal lists open workflows first and the others by their ends, so that a run changes its place when it ends. Here the
time is cut into spans that hold few enough runs to be read and put in order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecution

from durably.backends.temporal.outcome import view_of
from durably.core.run_filter import FoundRuns, RunFilter, found_page, read_cursor
from durably.core.run_view import RunStatus, RunView

__all__ = ["RunLister"]

SPAN_RUNS = 1_000
"""How many runs a span of time may hold to be read at once."""

FIRST_SPAN = timedelta(minutes=1)
SHORTEST_SPAN = timedelta(milliseconds=1)
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)

AT_ONCE = 10
"""How many live runs are looked at at once."""

_STATUSES = {
    RunStatus.COMPLETED: ("Completed",),
    RunStatus.SKIPPED: ("Completed",),
    RunStatus.FAILED: ("Failed", "TimedOut"),
    RunStatus.CANCELLED: ("Canceled", "Terminated"),
}

Place = tuple[int, str]
"""When a run was started, in microseconds since 1970, and its id."""


@dataclass(frozen=True, slots=True)
class Span:
    """From a moment, and before another one."""

    start: datetime
    end: datetime


class RunLister:
    """Lists the runs of one task queue.

    Args:
        client: The way to the server.
        task_queue: The queue.
        look: Looks where a live run stands.
    """

    def __init__(self, client: Client, task_queue: str, look: Callable[[RunView], Awaitable[RunView]]) -> None:
        self._client = client
        self._queue = task_queue
        self._look = look

    async def page(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        """See :meth:`~durably.core.Backend.find_runs`."""
        back = before is not None
        given = read_cursor(before if back else after, int, str)
        place = None if given is None else (int(given[0]), str(given[1]))
        found: list[tuple[Place, RunView]] = []
        async for each in self._matches(where, place, back=back):
            found.append(each)
            if len(found) > limit:
                break
        more = len(found) > limit
        page = found[:limit]
        if back:
            page.reverse()
        return found_page(page, after=after, back=back, more=more)

    async def tally(self, where: RunFilter) -> dict[RunStatus, int]:
        """See :meth:`~durably.core.Backend.tally_runs`."""
        counts: Counter[RunStatus] = Counter()
        async for _, view in self._matches(where, None, back=False):
            counts[view.status] += 1
        return dict(counts)

    # -- from executions to runs

    async def _matches(
        self, where: RunFilter, place: Place | None, *, back: bool
    ) -> AsyncIterator[tuple[Place, RunView]]:
        chunk: list[tuple[Place, RunView]] = []
        # Where a live run stands is known only after a look at it.
        known = replace(where, statuses=frozenset())
        async for execution in self._walk(where, place, back=back):
            view = view_of(execution, await execution.memo())
            at = _place(execution)
            beyond = place is None or (at > place if back else at < place)
            if not beyond or view.function.startswith("durably.") or not known.matches(view):
                continue
            chunk.append((at, view))
            if len(chunk) == AT_ONCE:
                for each in await self._seen(where, chunk):
                    yield each
                chunk = []
        for each in await self._seen(where, chunk):
            yield each

    async def _seen(self, where: RunFilter, chunk: list[tuple[Place, RunView]]) -> list[tuple[Place, RunView]]:
        views = await asyncio.gather(*(self._seen_one(where, view) for _, view in chunk))
        looked = [(place, view) for (place, _), view in zip(chunk, views, strict=True)]
        return [(place, view) for place, view in looked if where.matches(view)]

    async def _seen_one(self, where: RunFilter, view: RunView) -> RunView:
        return view if view.status.final or not where.live else await self._look(view)

    # -- through time

    async def _walk(self, where: RunFilter, place: Place | None, *, back: bool) -> AsyncIterator[WorkflowExecution]:
        """The workflows that may fit, in the order of their starts."""
        bounds = _bounds(where, place, back=back)
        query = self._query(where)
        width = FIRST_SPAN
        # As a rule all that is left is few enough; then it is one span.
        span = bounds
        while bounds.start < bounds.end:
            count = (await self._client.count_workflows(f"{query} AND {_in(span)}")).count
            while count > SPAN_RUNS and span.end - span.start > SHORTEST_SPAN:
                width = min(width, (span.end - span.start) / 2)
                span = _next(bounds, width, back=back)
                count = (await self._client.count_workflows(f"{query} AND {_in(span)}")).count
            if count:
                found = [each async for each in self._client.list_workflows(f"{query} AND {_in(span)}")]
                for execution in sorted(found, key=_place, reverse=not back):
                    yield execution
            bounds = Span(span.end, bounds.end) if back else Span(bounds.start, span.start)
            width *= 4
            span = bounds

    def _query(self, where: RunFilter) -> str:
        # A run that has gone on in a fresh history is several executions; the newest one stands for it.
        parts = [f"TaskQueue = {_text(self._queue)}", "ExecutionStatus != 'ContinuedAsNew'"]
        if where.function is not None:
            parts.append(f"WorkflowType = {_text(where.function)}")
        if where.prefix:
            parts.append(f"WorkflowId STARTS_WITH {_text(where.prefix)}")
        if where.ended[0] is not None:
            parts.append(f"CloseTime >= {_time(where.ended[0])}")
        if where.ended[1] is not None:
            parts.append(f"CloseTime <= {_time(where.ended[1])}")
        words = sorted({word for status in where.statuses for word in _STATUSES.get(status, ("Running",))})
        if words:
            parts.append(" OR ".join(f"ExecutionStatus = '{word}'" for word in words))
        return " AND ".join(f"({part})" for part in parts)


def _bounds(where: RunFilter, place: Place | None, *, back: bool) -> Span:
    start, end = BEGINNING, datetime.now(UTC) + timedelta(days=1)
    if where.created[0] is not None:
        start = datetime.fromtimestamp(where.created[0], UTC)
    if where.created[1] is not None:
        end = datetime.fromtimestamp(where.created[1], UTC) + SHORTEST_SPAN
    if place is not None:  # of those that were started in the same moment, the walk drops the wrong side
        at = datetime.fromtimestamp(place[0] / 1e6, UTC)
        start, end = (max(start, at - SHORTEST_SPAN), end) if back else (start, min(end, at + SHORTEST_SPAN))
    return Span(start, end)


def _next(bounds: Span, width: timedelta, *, back: bool) -> Span:
    if back:
        return Span(bounds.start, min(bounds.end, bounds.start + width))
    return Span(max(bounds.start, bounds.end - width), bounds.end)


def _in(span: Span) -> str:
    return f"StartTime >= '{span.start.isoformat()}' AND StartTime < '{span.end.isoformat()}'"


def _time(seconds: float) -> str:
    return f"'{datetime.fromtimestamp(seconds, UTC).isoformat()}'"


def _place(execution: WorkflowExecution) -> Place:
    return round(execution.start_time.timestamp() * 1e6), execution.id


def _text(value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
