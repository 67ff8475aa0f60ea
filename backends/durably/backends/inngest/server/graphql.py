"""Looking at runs from outside, through the GraphQL of the dev server.

Not through its REST routes: those answer from a cache of up to 15 seconds, and some with a wrong status.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
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
from durably.core.run_view import RunStatus

__all__ = ["GraphQLApi"]

_PAGE = 100
"""How many runs one request asks for."""

_FIELDS = "id status output queuedAt endedAt function{slug}"
_QUERIES = {
    "eventV2": f"query($id:ULID!){{eventV2(id:$id){{name runs{{{_FIELDS}}}}}}}",
    "run": f"query($id:String!){{run(runID:$id){{{_FIELDS}}}}}",
    "runs": (
        "query($first:Int!,$after:String,$filter:RunsFilterV2!){runs(first:$first,after:$after,"
        f"orderBy:[{{field:QUEUED_AT,direction:DESC}}],filter:$filter){{edges{{cursor node{{{_FIELDS}}}}}}}}}"
    ),
    "trace": (
        "query($id:String!){run(runID:$id){status trace(preview:true){status childrenSpans{name stepID stepOp outputID "
        "status startedAt endedAt}}}}"
    ),
    "runTrigger": "query($id:String!){runTrigger(runID:$id){payloads}}",
    "runTraceSpanOutputByID": "query($id:String!){runTraceSpanOutputByID(outputID:$id){data}}",
    "cancelRun": "mutation($id:ULID!){cancelRun(runID:$id){id status}}",
}


class GraphQLApi:
    """Asks the dev server. See :class:`~durably.backends.inngest.server.trace_views.RunApi`.

    Args:
        client: The way to the server.
    """

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def _ask(self, query: str, name: str = "", **variables: Any) -> Any:
        body = {"query": _QUERIES[query], "variables": variables}
        answer = await self._client.request("POST", "/v0/gql", body)
        data = answer.get("data")
        if data is None:
            raise LookupError(answer.get("errors"))
        found = data[name or query]
        if found is None:
            raise LookupError(f"{query} of {variables} is not there")
        return found

    async def runs_of_event(self, event_id: str) -> list[RunInfo]:
        """The runs that an event started. Raises LookupError for an event that is not known yet."""
        return [_run_info(node) for node in (await self._ask("eventV2", id=event_id))["runs"]]

    async def name_of_event(self, event_id: str) -> str:
        """The name of an event. Raises LookupError for one that is not known."""
        name: str = (await self._ask("eventV2", id=event_id))["name"]
        return name

    async def run(self, run_id: str) -> RunInfo:
        """One run. Raises LookupError if there is none."""
        return _run_info(await self._ask("run", id=run_id))

    async def runs(self, query: str = "") -> AsyncIterator[RunInfo]:
        """All runs, newest first, or those for which an expression about their event holds; without outputs."""
        where = {"from": "2020-01-01T00:00:00Z", **({"query": query} if query else {})}
        after: str | None = None
        while True:
            found = (await self._ask("runs", first=_PAGE, after=after, filter=where))["edges"]
            for edge in found:
                after = edge["cursor"]
                yield _run_info(edge["node"], listed=True)
            if len(found) < _PAGE:
                return

    async def event(self, run_id: str) -> dict[str, Any]:
        """The event that started a run."""
        found = await self._ask("runTrigger", id=run_id)
        event: dict[str, Any] = json.loads(found["payloads"][0])
        return event

    async def cancel(self, run_id: str) -> None:
        """End a run."""
        await self._ask("cancelRun", id=run_id)

    async def outputs(self, run_id: str, expected: Collection[str]) -> tuple[bool, list[SpanOutput]]:
        """Whether the trace is complete, and what the steps of a run gave, in the order of their ends."""
        found = await self._ask("trace", "run", id=run_id)
        trace = found["trace"] or {}
        spans = [_span(span) for span in trace.get("childrenSpans") or ()]
        outputs: list[SpanOutput] = []
        for span in with_output(spans):
            answer = await self._ask("runTraceSpanOutputByID", id=span.output)
            if answer.get("data"):
                outputs.append(SpanOutput(json.loads(answer["data"]), span.started or span.ended, span.ended))
        return is_complete(trace.get("status", ""), spans, expected), outputs


def _run_info(node: dict[str, Any], *, listed: bool = False) -> RunInfo:
    output = node.get("output")
    status = status_of(node["status"], has_output=listed or output is not None)  # a result of None is "null"
    data = json.loads(output) if status is RunStatus.FAILED and output else None
    error = data.get("error", data) if isinstance(data, dict) else None
    if isinstance(error, str):
        error = data
    return RunInfo(
        id=node["id"],
        function=node["function"]["slug"],
        status=status,
        output=(output or "null") if status is RunStatus.COMPLETED else None,
        error=error,
        queued_at=seconds(node["queuedAt"]),
        # Not null while the run is live: only the status tells.
        ended_at=seconds(node["endedAt"]) if status.final else 0.0,
    )


def _span(node: dict[str, Any]) -> Span:
    return Span(
        step=node.get("stepID"),
        op=node.get("stepOp") or "",
        status=node.get("status") or "",
        started=seconds(node.get("startedAt")),
        ended=seconds(node.get("endedAt")),
        output=node.get("outputID") or None,
    )
