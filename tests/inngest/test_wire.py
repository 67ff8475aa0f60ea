"""The engine makes the calls that a real server made: what an app answered there is answered again, here.

The files are exchanges recorded with the dev server and SDK 0.5.19, one line a call with its answer, without ids, times
and tracebacks.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably.testing.inngest import Call, InngestEngine

RECORDINGS = sorted(Path(__file__).with_name("wire").glob("*.jsonl"))


class RecordedApp:
    """Answers each call as the recorded app did."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.unexpected: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = dict(httpx.QueryParams(scope["query_string"]))
        body = json.loads((await receive())["body"])
        asked = (query["fnId"], query["stepId"], body["ctx"]["attempt"], sorted(body["steps"]))
        for row in self.rows:
            if not row.get("used") and (row["fn"], row["step"], row["attempt"], sorted(row["steps"])) == asked:
                break
        else:
            self.unexpected.append(str(asked))
            row = {"status": 500, "headers": {"x-inngest-no-retry": "true"}, "body": {"name": "Unexpected"}}
        row["used"] = True
        headers = {"x-inngest-sdk-handled": "true", "content-type": "application/json", **row["headers"]}
        wired = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": row["status"], "headers": wired})
        await send({"type": "http.response.body", "body": json.dumps(row["body"]).encode()})


def _functions(rows: list[dict[str, Any]], address: str) -> list[dict[str, Any]]:
    functions = {}
    for row in rows:
        trigger: dict[str, Any] = {"event": row["event"]["name"]}
        url = f"{address}/api/inngest?fnId={row['fn']}&stepId=step"
        step = {"runtime": {"url": url}, "retries": {"attempts": row["max"] - 1}}
        functions[row["fn"]] = {"id": row["fn"], "triggers": [trigger], "steps": {"step": step}}
    return list(functions.values())


async def _replay(rows: list[dict[str, Any]], seed: int) -> tuple[InngestEngine, RecordedApp]:
    engine, app = InngestEngine(seed=seed), RecordedApp(rows)
    async with engine.serve(app) as address:
        engine.register(_functions(rows, address))
        for row in rows:
            event = row["event"]
            if row["version"] == -1 and row["attempt"] == 0 and not event["name"].startswith("inngest/"):
                engine.receive(dict(event), None, 1)
        for _ in range(2000):
            await asyncio.sleep(0)
            if engine.idle and not engine.advance():
                break
    return engine, app


def _shape(call: Call) -> dict[str, Any]:
    return {
        "fn": call.function,
        "step": call.step,
        "attempt": call.attempt,
        "max": call.max_attempts,
        "planning": call.planning,
        "current": call.current,
        "version": call.version,
        "steps": call.steps,
    }


def _sorted(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.asyncio
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_the_engine_makes_the_recorded_calls(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    engine, app = await _replay(rows, seed=3)
    assert not app.unexpected
    recorded = [{key: row[key] for key in _shape(engine.calls[0])} for row in rows]
    # Parallel calls go out in any order; a retry of one carries what its siblings had given by then.
    assert _sorted([_shape(call) for call in engine.calls]) == _sorted(recorded)


@pytest.mark.asyncio
async def test_the_run_ends_as_recorded() -> None:
    for path in RECORDINGS:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        engine, _ = await _replay(rows, seed=5)
        last = rows[-1]
        run = next(run for run in engine.runs.values() if run.function == last["fn"])
        assert run.status == ("COMPLETED" if last["status"] == 200 else "FAILED"), path.stem
        assert run.output == last["body"] if last["status"] == 200 else run.output["error"], path.stem
