"""Looking at runs from outside in production, through the REST API, with the signing key as bearer token.

As documented at api-docs.inngest.com: v2 says where a run stands and what its steps gave, v1 what it came to, since v2
does not tell a result of 5 from one of ``{"data": 5}``. There is no list of runs, and those that were skipped are not
shown.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterator
from typing import Any

from durably.backends.inngest.sdk import Wire
from durably.backends.inngest.server.trace_views import Output, Seen, Span, is_complete, seconds, status_of, with_output
from durably.core.backend import RunStatus
from durably.core.errors import UnsupportedFeatureError

__all__ = ["CloudApi"]


_CACHED = 10.0
"""Seconds for which the API may go on saying that an event is not there."""


class CloudApi:
    """The same questions as :class:`~durably.backends.inngest.server.graphql.Api` asks.

    Args:
        wire: Who asks the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def runs_of_event(self, ulid: str) -> list[Seen]:
        """The runs that an event started; none for an event that is not known."""
        return [await self._seen(run) for run in await self._of_event(ulid)]

    async def _of_event(self, ulid: str) -> list[dict[str, Any]]:
        found: dict[str, Any] = await self._wire.ask("GET", f"/v2/events/{ulid}/runs?limit=40")
        return found.get("data") or []

    async def name_of_event(self, ulid: str) -> str:
        """The name of an event. Raises LookupError for one that is not known."""
        name: str = (await self._event(ulid))["name"]
        return name

    async def run(self, ulid: str) -> Seen:
        """One run. Raises LookupError if there is none."""
        run = (await self._wire.ask("GET", f"/v2/runs/{ulid}"))["data"]
        for event in run.get("trigger", {}).get("eventIds") or ():
            # The same run seen from its event: the dev server, for one, shows a late status in the other place.
            for each in await self._of_event(event):
                if each["id"] == ulid:
                    return await self._seen(each)
        return await self._seen(run)

    async def _seen(self, run: dict[str, Any]) -> Seen:
        end: dict[str, Any] = {}
        if status_of(run["status"], told=True).final:
            end = (await self._wire.ask("GET", f"/v1/runs/{run['id']}"))["data"] or {}
        status = status_of(run["status"], told=bool(end.get("ended_at")))
        return Seen(
            id=run["id"],
            function=f"{run['app']['id']}-{run['function']['id']}",
            status=status,
            output=json.dumps(end.get("output")) if status is RunStatus.COMPLETED else None,
            error=_error(end.get("output")) if status is RunStatus.FAILED else None,
            queued_at=seconds(run.get("queuedAt")),
            ended_at=seconds(end.get("ended_at")) if status.final else 0.0,
        )

    async def runs(self, first: int, query: str = "") -> list[Seen]:
        """Not there."""
        if query:
            return []  # a child is known by Inngest's id only
        reason = "the REST API of Inngest Cloud has no list of runs; look at its pages"
        raise UnsupportedFeatureError(backend="inngest", feature="runs()", reason=reason)

    async def event(self, ulid: str) -> dict[str, Any]:
        """The event that started a run."""
        run = (await self._wire.ask("GET", f"/v2/runs/{ulid}"))["data"]
        first, *_ = run["trigger"]["eventIds"]
        until = time.monotonic() + _CACHED
        while True:
            try:
                return await self._event(first)
            except LookupError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)

    async def _event(self, ulid: str) -> dict[str, Any]:
        event: dict[str, Any] | None = (await self._wire.ask("GET", f"/v1/events/{ulid}"))["data"]
        if event is None:
            raise LookupError(f"event {ulid} is not there")
        return event

    async def cancel(self, ulid: str) -> None:
        """End a run."""
        await self._wire.ask("DELETE", f"/v1/runs/{ulid}")

    async def outputs(self, ulid: str, expected: Collection[str]) -> tuple[bool, list[Output]]:
        """Whether the trace is complete, and what the steps of a run gave, in the order of their ends."""
        trace = (await self._wire.ask("GET", f"/v2/runs/{ulid}/trace?includeOutput=true"))["data"]["rootSpan"]
        spans = list(_spans(trace))
        outputs = [Output(span.output, span.started or span.ended, span.ended) for span in with_output(spans)]
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
