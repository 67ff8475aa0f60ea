"""What the engine answers through its REST API: the answers of the real server, shape by shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from durably.testing.inngest.runs import EngineRun

__all__ = ["end_body", "event_body", "iso", "op_shown", "run_body", "trace_body"]


def event_body(event: dict[str, Any], ulid: str) -> dict[str, Any]:
    """An event."""
    return {"data": {"internal_id": ulid, "source": "", **event}, "metadata": {"cached_until": None}}


def end_body(run: EngineRun) -> dict[str, Any]:
    """A run as the older API shows it."""
    ended = None if run.live else iso(run.ended_at)
    body = {"run_id": run.id, "status": run.status.capitalize(), "ended_at": ended, "output": _output(run)}
    return {"data": body, "metadata": {"cached_until": None}}


def _output(run: EngineRun) -> Any:
    """What the run came to. What its code raised stands a level higher than what the server says of it."""
    if run.status == "FAILED" and "stack" in run.output["error"]:
        return run.output["error"]
    return {} if run.status == "CANCELLED" else run.output


def run_body(run: EngineRun, event_ids: list[str]) -> dict[str, Any]:
    """A run."""
    app, _, function = run.function.partition("-")
    body: dict[str, Any] = {
        "app": {"id": app},
        "function": {"id": function, "name": function},
        "id": run.id,
        "queuedAt": iso(run.started_at),
        "startedAt": iso(run.started_at),
        "status": run.status,
        "trigger": {"eventIds": event_ids},
    }
    return body


def trace_body(run: EngineRun) -> dict[str, Any]:
    """The trace of a run, each step once."""
    children: list[dict[str, Any]] = []
    for step, name, op, memo in run.trace:
        span = {"name": name, "stepId": step, "stepOp": op_shown(op), "status": "COMPLETED"}
        span |= dict.fromkeys(("queuedAt", "startedAt", "endedAt"), iso(run.settled_at[step]))
        output = {"output": memo["data"]} if isinstance(memo, dict) and memo.get("data") else {}
        children.append({**span, **output})
    if not run.live:
        children.append({"name": "executor.nonstep", "status": run.status, "startedAt": iso(run.ended_at)})
    return {"data": {"runId": run.id, "rootSpan": {"name": "Run", "status": run.status, "children": children}}}


_OPS = {"Sleep": "SLEEP", "WaitForEvent": "WAIT_FOR_EVENT", "InvokeFunction": "INVOKE"}


def op_shown(op: str) -> str:
    """What kind of step it is, as the traces show it."""
    return _OPS.get(op, "RUN")


def iso(moment: float) -> str:
    """A moment as the server writes it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
