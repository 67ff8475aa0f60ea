"""Looking at runs from outside, through the server's GraphQL.

Not through its REST routes: those answer from a cache of up to 15 seconds, and some with a wrong status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from durably.backends.inngest.sdk import Wire
from durably.core import UnsupportedFeatureError
from durably.core.backend import RunStatus

__all__ = ["Api", "Output", "Seen"]

_FIELDS = "id status output queuedAt endedAt function{slug}"
_QUERIES = {
    "eventV2": f"query($id:ULID!){{eventV2(id:$id){{name runs{{{_FIELDS}}}}}}}",
    "run": f"query($id:String!){{run(runID:$id){{{_FIELDS}}}}}",
    "runs": (
        "query($first:Int!,$filter:RunsFilterV2!){runs(first:$first,orderBy:[{field:QUEUED_AT,direction:DESC}],"
        f"filter:$filter){{edges{{node{{{_FIELDS}}}}}}}}}"
    ),
    "trace": (
        "query($id:String!){run(runID:$id){status trace(preview:true){status childrenSpans{name stepID outputID "
        "status startedAt endedAt}}}}"
    ),
    "runTrigger": "query($id:String!){runTrigger(runID:$id){payloads}}",
    "runTraceSpanOutputByID": "query($id:String!){runTraceSpanOutputByID(outputID:$id){data}}",
    "cancelRun": "mutation($id:ULID!){cancelRun(runID:$id){id status}}",
}

_STATUSES = {
    "COMPLETED": RunStatus.COMPLETED,
    "FAILED": RunStatus.FAILED,
    "CANCELLED": RunStatus.CANCELLED,
    "SKIPPED": RunStatus.SKIPPED,
}


@dataclass(frozen=True)
class Seen:
    """A run as Inngest shows it.

    Attributes:
        id: Inngest's id.
        function: The full id of its function.
        status: Where it stands. A run that has ended is shown as running until what it came to is shown as well.
        output: Its result as JSON text.
        error: What Inngest says of its failure.
        queued_at: Seconds since 1970.
        ended_at: Seconds since 1970; 0 while it is live.
    """

    id: str
    function: str
    status: RunStatus
    output: str | None
    error: dict[str, Any] | None
    queued_at: float
    ended_at: float

    @classmethod
    def of(cls, node: dict[str, Any], *, listed: bool = False) -> Seen:
        """Read what GraphQL gave. A list never holds outputs."""
        status = _STATUSES.get(node["status"], RunStatus.RUNNING)
        output = node.get("output")
        if output is None and status in (RunStatus.COMPLETED, RunStatus.FAILED) and not listed:
            status = RunStatus.RUNNING  # the output follows the status by a tenth of a second or so; None is "null"
        data = json.loads(output) if status is RunStatus.FAILED and output else None
        error = data.get("error", data) if isinstance(data, dict) else None
        if isinstance(error, str):
            error = data
        return cls(
            id=node["id"],
            function=node["function"]["slug"],
            status=status,
            output=(output or "null") if status is RunStatus.COMPLETED else None,
            error=error,
            queued_at=_seconds(node["queuedAt"]),
            # Not null while the run is live: only the status tells.
            ended_at=_seconds(node["endedAt"]) if status.final and node.get("endedAt") else 0.0,
        )


@dataclass(frozen=True)
class Output:
    """What a step gave.

    Attributes:
        data: The JSON data.
        started: Seconds since 1970, by the server's clock.
        ended: The same.
    """

    data: Any
    started: float
    ended: float


class Api:
    """The questions.

    Args:
        wire: Who asks the server.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def _ask(self, query: str, name: str = "", **variables: Any) -> Any:
        if self._wire.cloud:
            reason = "its GraphQL is not open to signing keys; look at the run on its pages"
            raise UnsupportedFeatureError(backend="inngest", feature="looking at runs on Inngest Cloud", reason=reason)
        body = {"query": _QUERIES[query], "variables": variables}
        answer = await self._wire.ask("POST", "/v0/gql", body)
        data = answer.get("data")
        if data is None:
            raise LookupError(answer.get("errors"))
        found = data[name or query]
        if found is None:
            raise LookupError(f"{query} of {variables} is not there")
        return found

    async def runs_of_event(self, ulid: str) -> tuple[str, list[Seen]]:
        """The name of an event and the runs it started. Raises LookupError for an event that is not known yet."""
        found = await self._ask("eventV2", id=ulid)
        return found["name"], [Seen.of(node) for node in found["runs"]]

    async def run(self, ulid: str) -> Seen:
        """One run. Raises LookupError if there is none."""
        return Seen.of(await self._ask("run", id=ulid))

    async def runs(self, first: int, query: str = "") -> list[Seen]:
        """The newest runs, newest first, or those for which an expression about their event holds."""
        where = {"from": "2020-01-01T00:00:00Z", **({"query": query} if query else {})}
        found = await self._ask("runs", first=first, filter=where)
        return [Seen.of(edge["node"], listed=True) for edge in found["edges"]]

    async def event(self, ulid: str) -> dict[str, Any]:
        """The event that started a run."""
        found = await self._ask("runTrigger", id=ulid)
        event: dict[str, Any] = json.loads(found["payloads"][0])
        return event

    async def cancel(self, ulid: str) -> None:
        """End a run."""
        await self._ask("cancelRun", id=ulid)

    async def outputs(self, ulid: str) -> tuple[bool, list[Output]]:
        """Whether the trace is complete, and what the steps of a run gave, in the order of their ends."""
        found = await self._ask("trace", "run", id=ulid)
        trace = found["trace"] or {}
        spans: dict[str, dict[str, Any]] = {}
        for span in trace.get("childrenSpans") or ():
            # A step is listed twice, with one output; it may be shown as ended in only one of them.
            if span.get("outputID") and span.get("stepID") and not (spans.get(span["stepID"]) or {}).get("endedAt"):
                spans[span["stepID"]] = span
        outputs: list[Output] = []
        for span in spans.values():
            answer = await self._ask("runTraceSpanOutputByID", id=span["outputID"])
            if answer.get("data"):
                ended = _seconds(span["endedAt"] or span["startedAt"])
                outputs.append(
                    Output(json.loads(answer["data"]), _seconds(span["startedAt"] or span["endedAt"]), ended)
                )
        return _complete(trace), sorted(outputs, key=lambda output: output.ended)


def _complete(trace: dict[str, Any]) -> bool:
    # The whole trace may be shown as waiting for a minute; the call that ended the run is shown sooner.
    ends = [span for span in trace.get("childrenSpans") or () if not span.get("stepID")]
    return any(span.get("status") in ("COMPLETED", "FAILED", "CANCELLED") for span in [trace, *ends])


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
