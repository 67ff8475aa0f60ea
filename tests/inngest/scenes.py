"""Scenes that were recorded with a real server, and the engine made to play them again.

A scene has several runs, what somebody did meanwhile, and how each run ended. Its file says first how the functions
were registered, when it began (``start``, seconds since 1970), and for how long the app could not be reached (``down``,
in seconds). Then comes a line for each thing that happened, with ``at``, in seconds after the start:

- ``outside``: events that somebody sent together;
- ``ask``: a question or an order to the server (method, path, body), about a ``run`` given by the data of its events,
  with what was answered, in which ``{run}``, ``{event}``, ``{output}`` and ``{moment}`` stand for what differs;
- a call to the app, and what was answered ``takes`` seconds later; a status of ``null`` is a process that was killed;
- ``end``: how a run was seen to end.

In a ``loose`` scene an answer comes as long after its call as it did there; elsewhere at the moment when it came there,
so that small differences do not add up. Ids and moments are left out of data, and ``{"repeated": ["y", 9]}`` is a text
of nine letters.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx

from durably.testing.inngest import InngestEngine

__all__ = ["Scene", "SceneApp", "data_of", "play"]

_HOP = 0.04
"""The least that the server took from an answer to the next call: so no run ends later here than it did there."""
_TURNS = 200
"""Of the loop: more than any call needs to get through."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_ANSWER = frozenset(["at", "takes", "status", "headers", "body"])


class Scene:
    """What was recorded.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        lines = [json.loads(line, object_hook=_full) for line in path.read_text().splitlines()]
        self.head, *rows = lines
        self.start: float = self.head["start"]
        self.outside = [row for row in rows if "outside" in row]
        self.asked = [row for row in rows if "ask" in row]
        self.calls = [row for row in rows if "step" in row]
        self.ends = [row for row in rows if "end" in row]


class SceneApp:
    """Answers each call as the recorded app did, after the same time.

    Attributes:
        left: The recorded calls that have not come.
        unexpected: The calls that came and were not recorded.
        spans: For each recorded call when it came and when it was answered, in seconds after the start.
        answers: For each recorded question what the engine answered: status and body.
    """

    def __init__(self, scene: Scene, engine: InngestEngine) -> None:
        self.left = list(scene.calls)
        self.unexpected: list[str] = []
        self.spans: list[tuple[dict[str, Any], float, float]] = []
        self.answers: list[tuple[dict[str, Any], int, Any]] = []
        self._scene = scene
        self._engine = engine
        self._names: dict[str, str] = {}
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(engine.api), base_url="http://engine.local")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        call = await self._shape(dict(httpx.QueryParams(scope["query_string"])), json.loads((await receive())["body"]))
        row = next((row for row in self.left if call == {key: row[key] for key in row.keys() - _ANSWER}), None)
        if row is None:
            self.unexpected.append(str(call)[:2000])
            row = {"at": 0.0, "takes": 0.0, "status": 500, "headers": {"x-inngest-no-retry": "true"}, "body": None}
        else:
            self.left.remove(row)
        began = self._moment()
        await self._until(began + row["takes"] if self._scene.head.get("loose") else row["at"] + row["takes"])
        self.spans.append((row, began, self._moment()))
        if row["status"] is None:
            raise ConnectionResetError("the process was killed")
        headers = {"x-inngest-sdk-handled": "true", "content-type": "application/json", **row["headers"]}
        wired = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": row["status"], "headers": wired})
        await send({"type": "http.response.body", "body": json.dumps(row["body"]).encode()})

    async def _shape(self, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """A call as the scenes' files have it."""
        ctx = body["ctx"]
        shape = {
            "fn": query["fnId"],
            "step": query["stepId"],
            "attempt": ctx["attempt"],
            "max": ctx["max_attempts"],
            "planning": ctx["disable_immediate_execution"],
            **ctx["stack"],
            "version": body["version"],
            "use_api": body["use_api"],
            "data": data_of(body["events"]),
            "steps": body["steps"],
        }
        if body["use_api"]:  # as the SDK does
            events = (await self._http.get(f"/v0/runs/{ctx['run_id']}/batch")).json()
            steps = (await self._http.get(f"/v0/runs/{ctx['run_id']}/actions")).json()
            shape["fetched"] = {"data": data_of(events), "steps": steps}
        return shape

    def _moment(self) -> float:
        return self._engine.now() - self._scene.start

    async def _until(self, moment: float) -> None:
        done = asyncio.get_running_loop().create_future()
        self._engine.timers.at(max(self._engine.now(), self._scene.start + moment), partial(done.set_result, None))
        await done

    async def ask(self, row: dict[str, Any]) -> None:
        """Do what somebody asked of the server."""
        await self._until(row["at"])
        run = next(run for run in self._engine.runs.values() if data_of(run.events) == row["run"])
        self._names |= {"{run}": run.id, "{event}": run.events[0]["id"]}
        method, path, body = json.loads(_renamed(json.dumps(row["ask"]), self._names))
        answer = await self._http.request(method, path, json=body)
        if output := re.search(r'"outputID": "([^"]+)"', answer.text):
            self._names["{output}"] = output[1]
        text = _renamed(_MOMENT.sub("{moment}", answer.text), {name: key for key, name in self._names.items()})
        self.answers.append((row, answer.status_code, json.loads(text) if text else ""))


async def play(scene: Scene, seed: int) -> tuple[InngestEngine, SceneApp]:
    """Let it all happen again, and see."""
    engine = InngestEngine(seed=seed, hop=_HOP, start=scene.start)
    app = SceneApp(scene, engine)
    engine.faults.refuse = lambda call: engine.now() < scene.start + scene.head.get("down", 0.0)
    async with engine.serve(app) as address:
        engine.register([_registered(each, address) for each in scene.head["functions"]])
        for row in scene.outside:
            engine.timers.at(scene.start + row["at"], partial(_send, engine, row["outside"]))
        asking = [asyncio.create_task(app.ask(row)) for row in scene.asked]
        await _settle()
        while engine.timers.step():
            await _settle()
        await asyncio.gather(*asking)
    return engine, app


def _registered(function: dict[str, Any], address: str) -> dict[str, Any]:
    options = {key: value for key, value in function.items() if key != "retries"}
    url = f"{address}/api/inngest?fnId={function['id']}&stepId=step"
    step = {"runtime": {"url": url}, "retries": {"attempts": function.get("retries", 4)}}
    return {**options, "steps": {"step": step}}


def _send(engine: InngestEngine, events: list[dict[str, Any]]) -> None:
    for event in events:
        engine.receive(dict(event), None, 1)


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def data_of(events: list[dict[str, Any]]) -> list[Any]:
    """The data of events, in an order of their own, without ids and moments."""
    return sorted((_plain(event["data"]) for event in events), key=lambda data: json.dumps(data, sort_keys=True))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in ("id", "ts", "user", "run_id")}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _full(value: dict[str, Any]) -> Any:
    return _repeated(*value["repeated"]) if "repeated" in value else value


@cache
def _repeated(letter: str, count: int) -> str:
    return letter * count
