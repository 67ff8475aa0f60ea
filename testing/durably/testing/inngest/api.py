"""What the engine answers over HTTP: events, registrations, and questions about runs. An ASGI app."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from inngest._internal import transforms

from durably.testing.inngest.expressions import evaluate
from durably.testing.inngest.rest import end_body, event_body, iso, op_shown, run_body, trace_body
from durably.testing.inngest.runs import EngineRun

__all__ = ["EngineApi"]

Answer = tuple[int, Any]


class Engine(Protocol):
    """What is asked of the engine."""

    runs: dict[str, EngineRun]
    events: dict[str, tuple[dict[str, Any], list[str]]]
    signing_key: str | None

    def register(self, functions: list[dict[str, Any]]) -> None: ...
    def receive(self, event: dict[str, Any], seed: str | None, index: int) -> str: ...
    def advance(self) -> bool: ...


class EngineApi:
    """The server's HTTP side.

    Args:
        engine: Whom it asks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: set[str] = set()

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
        content = b""
        while (message := await receive()).get("more_body") or message.get("body"):
            content += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        if self._refused(path, headers):
            status, answer = 401, {"error": "Unauthorized"}
        else:
            status, answer = self._answer(method, path, json.loads(content or b"null"), headers)
        if path == "/v0/gql" or path.startswith("/v2/"):
            await self._polled(answer)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", _JSON)]})
        content = b"" if answer is None else json.dumps(answer).encode()
        await send({"type": "http.response.body", "body": content})

    def _refused(self, path: str, headers: dict[str, str]) -> bool:
        key = self._engine.signing_key
        if key is None or path.startswith("/e/"):
            return False
        return path == "/v0/gql" or headers.get("authorization") != f"Bearer {transforms.hash_signing_key(key)}"

    def _answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        match method, path.strip("/").split("/"):
            case "POST", ["e", _]:
                return self._events(body if isinstance(body, list) else [body], headers)
            case "POST", ["fn", "register"]:
                try:
                    self._engine.register(body["functions"])
                except ValueError as error:
                    return 400, {"error": str(error)}
                return 200, {"ok": True, "modified": True}
            case "POST", ["v0", "gql"]:
                return self._graphql(body["query"], body.get("variables") or {})
            case "DELETE", ["v1", "runs", run_id] if run_id in self._engine.runs:
                self._engine.runs[run_id].end("CANCELLED")
                return 200, None
            case "GET", ["v0", "runs", run_id, "actions" | "batch" as what] if run_id in self._engine.runs:
                run = self._engine.runs[run_id]
                if not run.live:
                    gone = f"runtime state is no longer available for runID: {run_id}"
                    return 410, {"error": gone, "data": None, "status": 410}
                return 200, run.steps if what == "actions" else run.events
            case "GET", ["v1", "events", ulid] if ulid in self._engine.events:
                return 200, event_body(self._engine.events[ulid][0], ulid)
            case "GET", ["v2", "events", ulid, "runs"] if ulid in self._engine.events:
                runs = [self._engine.runs[each] for each in self._engine.events[ulid][1]]
                return 200, {"data": [run_body(run, [ulid]) for run in runs if run.status != "SKIPPED"]}
            case "GET", ["v1", "runs", run_id] if run_id in self._engine.runs:
                return 200, end_body(self._engine.runs[run_id])
            case "GET", ["v2", "runs", run_id] if run_id in self._engine.runs:
                sources = [ulid for ulid, (_, runs) in self._engine.events.items() if run_id in runs]
                return 200, {"data": run_body(self._engine.runs[run_id], sources)}
            case "GET", ["v2", "runs", run_id, "trace"] if run_id in self._engine.runs:
                return 200, trace_body(self._engine.runs[run_id])
        return 404, {"error": f"{method} {path}: not found"}

    def _events(self, events: list[dict[str, Any]], headers: dict[str, str]) -> Answer:
        seed = headers.get("x-inngest-event-id-seed")
        try:
            ids = [self._engine.receive(event, seed, index) for index, event in enumerate(events, 1)]
        except ValueError as error:
            return 400, {"ids": [""], "status": 400, "error": str(error)}
        return 200, {"ids": ids, "status": 200}

    async def _polled(self, answer: Any) -> None:
        """Somebody looks at a live run: if there is nothing to do but wait, the wait is over."""
        await asyncio.sleep(0)
        if "RUNNING" in json.dumps(answer):
            for _ in range(3):
                await asyncio.sleep(0)  # what was just answered may have more to do
            self._engine.advance()

    # -- GraphQL: which question it is shows in its text; every field is answered

    def _graphql(self, query: str, given: dict[str, Any]) -> Answer:
        for name in ("eventV2", "cancelRun", "runTraceSpanOutputByID", "runTrigger", "runs", "run"):
            if f"{name}(" in query:
                about = re.search(rf"{name}\((?:id|runID|outputID):\$(\w+)", query)
                try:
                    if about is not None:  # whatever the question calls its variable
                        given = {**given, "id": given[about[1]]}
                    return 200, {"data": {name: getattr(self, f"_{name}")(given)}}
                except LookupError as error:
                    message = f"not found: {error.args[0]}"
                    return 200, {"errors": [{"message": message, "path": [name]}], "data": None}
        return 200, {"errors": [{"message": f"unknown question: {query}"}], "data": None}

    def _eventV2(self, given: dict[str, Any]) -> Any:  # noqa: N802  # the wire's name
        event, runs = self._engine.events[given["id"]]
        return {"name": event["name"], "runs": [self._seen(self._engine.runs[each]) for each in runs]}

    def _cancelRun(self, given: dict[str, Any]) -> Any:  # noqa: N802
        run = self._engine.runs[given["id"]]
        run.end("CANCELLED")
        return self._seen(run)

    def _run(self, given: dict[str, Any]) -> Any:
        run = self._engine.runs[given["id"]]
        spans: list[dict[str, Any]] = [
            {"name": name, "stepID": step, "stepOp": op_shown(op), "status": "COMPLETED"}
            | {"outputID": None if op == "Sleep" else _pack(run.id, step)}
            | dict.fromkeys(("startedAt", "endedAt"), iso(run.settled_at[step]))
            for step, name, op, _ in run.trace
        ]
        if not run.live:
            spans.append({"name": "executor.nonstep", "stepID": None, "stepOp": None, "status": run.status})
        trace = {"isRoot": True, "name": "Run", "status": run.status, "childrenSpans": spans}
        seen = {**self._seen(run), "trace": trace}
        if not run.live and run.id not in self._told:
            self._told.add(run.id)
            seen["output"] = None  # as on the server, where the output of a run is shown a little after its end
        return seen

    def _runs(self, given: dict[str, Any]) -> Any:
        newest = list(reversed(self._engine.runs.values()))
        wanted = given.get("filter", {}).get("query", "")
        found = [run for run in newest if not wanted or _holds(wanted, run)]
        ids = [run.id for run in found]
        start = ids.index(given["after"]) + 1 if given.get("after") else 0
        page = found[start : start + given.get("first", 40)]
        return {"edges": [{"cursor": run.id, "node": {**self._seen(run), "output": None}} for run in page]}

    def _runTrigger(self, given: dict[str, Any]) -> Any:  # noqa: N802
        run = self._engine.runs[given["id"]]
        return {"payloads": [json.dumps(event) for event in run.events], "eventName": run.events[0]["name"]}

    def _runTraceSpanOutputByID(self, given: dict[str, Any]) -> Any:  # noqa: N802
        run_id, step = _unpack(given["id"])
        memo = self._engine.runs[run_id].steps[step]
        data = memo.get("data") if isinstance(memo, dict) else memo
        return {"data": _text(data), "error": memo.get("error") if isinstance(memo, dict) else None}

    def _seen(self, run: EngineRun) -> dict[str, Any]:
        return {
            "id": run.id,
            "status": run.status,
            "function": {"slug": run.function},
            "output": None if run.output is None and run.status != "COMPLETED" else _text(run.output),
            "queuedAt": iso(run.started_at),
            "startedAt": iso(run.started_at),
            # As on the server, not null while the run is live: only the status tells.
            "endedAt": iso(run.ended_at or run.started_at + 0.002),
        }


_JSON = b"application/json"


def _holds(expression: str, run: EngineRun) -> bool:
    return bool(evaluate(expression, {"event": run.events[0]}))


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _pack(run_id: str, step: str) -> str:
    return base64.b64encode(f"{run_id} {step}".encode()).decode()


def _unpack(text: str) -> tuple[str, str]:
    run_id, _, step = base64.b64decode(text).decode().partition(" ")
    return run_id, step
