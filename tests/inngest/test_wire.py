"""The engine makes the calls that a real server made: what an app answered there is answered again, here.

The files are exchanges recorded with the dev server and SDK 0.5.19, one line a call with its answer, without ids and
tracebacks. A status of ``null`` is an answer that was lost, ``sdk: false`` one that did not come from the SDK. Where
time matters, ``at`` says when a call came, in seconds after the first; ``outside`` is an event that somebody sent then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably.testing.inngest import Call, InngestEngine

RECORDINGS = sorted(Path(__file__).with_name("wire").glob("*.jsonl"))


class RecordedApp:
    """Answers each call as the recorded app did."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = [row for row in rows if "outside" not in row]
        self.unexpected: list[str] = []
        self.moments: list[float] = []
        self.now: Callable[[], float] = lambda: 0.0

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
        self.moments.append(self.now())
        if row["status"] is None:
            raise ConnectionResetError("the answer was lost")
        ours = row.get("sdk", True)
        headers = {"x-inngest-sdk-handled": "true", "content-type": "application/json"} if ours else {}
        wired = [(name.encode(), value.encode()) for name, value in {**headers, **row["headers"]}.items()]
        await send({"type": "http.response.start", "status": row["status"], "headers": wired})
        body = json.dumps(row["body"]) if ours else row["body"]
        await send({"type": "http.response.body", "body": body.encode()})


def _functions(rows: list[dict[str, Any]], address: str) -> list[dict[str, Any]]:
    functions = {}
    for row in rows:
        if "outside" in row:
            continue
        trigger: dict[str, Any] = {"event": row["event"]["name"]}
        url = f"{address}/api/inngest?fnId={row['fn']}&stepId=step"
        step = {"runtime": {"url": url}, "retries": {"attempts": row["max"] - 1}}
        functions[row["fn"]] = {"id": row["fn"], "triggers": [trigger], "steps": {"step": step}}
    return list(functions.values())


async def _replay(rows: list[dict[str, Any]], seed: int) -> tuple[InngestEngine, RecordedApp]:
    begin = rows[0]["event"].get("ts")
    # A file with moments in it is replayed in its own time; one without, at any.
    engine, app = InngestEngine(seed=seed, hop=0.12, start=begin and begin / 1000), RecordedApp(rows)
    app.now = engine.now
    async with engine.serve(app) as address:
        engine.register(_functions(rows, address))
        for row in rows:
            if "outside" in row:
                engine.timers.at(engine.now() + row["at"], partial(_send, engine, row["outside"]))
                continue
            event = row["event"]
            if row["version"] == -1 and row["attempt"] == 0 and not event["name"].startswith("inngest/"):
                engine.receive(dict(event), None, 1)
        for _ in range(2000):
            await asyncio.sleep(0)
            if engine.idle and not engine.advance():
                break
    return engine, app


def _send(engine: InngestEngine, event: dict[str, Any]) -> None:
    engine.receive(event, None, 1)


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
    recorded = [{key: row[key] for key in _shape(engine.calls[0])} for row in app.rows]
    # Parallel calls go out in any order; a retry of one carries what its siblings had given by then.
    assert _sorted([_shape(call) for call in engine.calls]) == _sorted(recorded)


@pytest.mark.asyncio
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
async def test_the_run_ends_as_recorded(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    engine, app = await _replay(rows, seed=3)
    last = app.rows[-1]
    run = next(run for run in engine.runs.values() if run.function == last["fn"])
    assert run.status == ("COMPLETED" if last["status"] == 200 else "FAILED")
    if last["status"] == 200:
        assert run.output == last["body"]
    elif last["status"] is None:
        assert run.output["error"]["message"] == "Unable to reach SDK URL"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "path",
    # In `sleep-rounded` each sleep is so short that the moments depend on how long the server took for each call.
    [path for path in RECORDINGS if path.stem.startswith(("sleep", "wait")) and path.stem != "sleep-rounded"],
    ids=lambda path: path.stem,
)
async def test_calls_come_at_the_recorded_moments(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    engine, app = await _replay(rows, seed=3)
    for moment, row in zip(app.moments, app.rows, strict=True):
        assert abs(moment - app.moments[0] - row["at"]) < 0.5, "a sleep is rounded to a whole second, as on the server"
    assert engine.idle
