"""Looking at runs from outside in production, through the REST API, with the signing key as bearer token.

As documented at api-docs.inngest.com: v2 says where a run stands and what its steps gave, v1 what it came to, since v2
does not tell a result of 5 from one of ``{"data": 5}``. There is no list of runs, and those that were skipped are not
shown.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Any

from durably.backends.inngest.sdk import ServerClient
from durably.backends.inngest.server.trace_views import (
    RunInfo,
    Span,
    SpanOutput,
    is_complete,
    seconds,
    status_of,
    with_output,
)
from durably.core.errors import UnsupportedFeatureError
from durably.core.run_view import RunStatus

__all__ = ["RestApi"]

_CACHED = 10.0
"""Seconds for which the API may go on saying that an event is not there."""


class RestApi:
    """Asks a server that wants keys. See :class:`~durably.backends.inngest.server.trace_views.RunApi`.

    Args:
        client: The way to the server.
    """

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def runs_of_event(self, event_id: str) -> list[RunInfo]:
        """The runs that an event started; none for an event that is not known."""
        return [await self._run_info(run) for run in await self._of_event(event_id)]

    async def _of_event(self, event_id: str) -> list[dict[str, Any]]:
        found: dict[str, Any] = await self._client.request("GET", f"/v2/events/{event_id}/runs?limit=40")
        return found.get("data") or []

    async def name_of_event(self, event_id: str) -> str:
        """The name of an event. Raises LookupError for one that is not known."""
        name: str = (await self._event(event_id))["name"]
        return name

    async def run(self, run_id: str) -> RunInfo:
        """One run. Raises LookupError if there is none."""
        run = (await self._client.request("GET", f"/v2/runs/{run_id}"))["data"]
        for event in run.get("trigger", {}).get("eventIds") or ():
            # The same run seen from its event: the dev server, for one, shows a late status in the other place.
            for each in await self._of_event(event):
                if each["id"] == run_id:
                    return await self._run_info(each)
        return await self._run_info(run)

    async def _run_info(self, run: dict[str, Any]) -> RunInfo:
        end: dict[str, Any] = {}
        if status_of(run["status"], has_output=True).final:
            end = (await self._client.request("GET", f"/v1/runs/{run['id']}"))["data"] or {}
        status = status_of(run["status"], has_output=bool(end.get("ended_at")))
        return RunInfo(
            id=run["id"],
            function=f"{run['app']['id']}-{run['function']['id']}",
            status=status,
            output=json.dumps(end.get("output")) if status is RunStatus.COMPLETED else None,
            error=_error(end.get("output")) if status is RunStatus.FAILED else None,
            queued_at=seconds(run.get("queuedAt")),
            ended_at=seconds(end.get("ended_at")) if status.final else 0.0,
        )

    async def runs(self, query: str = "") -> AsyncIterator[RunInfo]:
        """Not there."""
        if not query:
            reason = "the REST API of Inngest Cloud has no list of runs; look at its pages"
            raise UnsupportedFeatureError(backend="inngest", feature="runs()", reason=reason)
        nothing: list[RunInfo] = []  # a child is known by Inngest's id only
        for each in nothing:
            yield each

    async def event(self, run_id: str) -> dict[str, Any]:
        """The event that started a run."""
        run = (await self._client.request("GET", f"/v2/runs/{run_id}"))["data"]
        first, *_ = run["trigger"]["eventIds"]
        until = time.monotonic() + _CACHED
        while True:
            try:
                return await self._event(first)
            except LookupError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)

    async def _event(self, event_id: str) -> dict[str, Any]:
        event: dict[str, Any] | None = (await self._client.request("GET", f"/v1/events/{event_id}"))["data"]
        if event is None:
            raise LookupError(f"event {event_id} is not there")
        return event

    async def cancel(self, run_id: str) -> None:
        """End a run."""
        await self._client.request("DELETE", f"/v1/runs/{run_id}")

    async def outputs(self, run_id: str, expected: Collection[str]) -> tuple[bool, list[SpanOutput]]:
        """Whether the trace is complete, and what the steps of a run gave, in the order of their ends."""
        trace = (await self._client.request("GET", f"/v2/runs/{run_id}/trace?includeOutput=true"))["data"]["rootSpan"]
        spans = list(_spans(trace))
        outputs = [SpanOutput(span.output, span.started or span.ended, span.ended) for span in with_output(spans)]
        return is_complete(trace.get("status", ""), spans, expected), outputs


def _spans(node: dict[str, Any]) -> Iterator[Span]:
    for child in node.get("children") or ():
        yield Span(
            step=child.get("stepId"),
            op=child.get("stepOp", ""),
            status=child.get("status", ""),
            started=seconds(child.get("startedAt")),
            ended=seconds(child.get("endedAt")),
            output=child.get("output"),
        )
        yield from _spans(child)


def _error(output: Any) -> dict[str, Any]:
    # What Inngest itself says of a run stands one level deeper than what its code raised.
    inner = output.get("error") if isinstance(output, dict) else {"message": str(output)}
    return inner if isinstance(inner, dict) else dict(output)
