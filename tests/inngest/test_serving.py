"""Each way to make the functions reachable, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import django  # type: ignore[import-untyped]
import fastapi
import flask
import httpx
import inngest
import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from django.conf import settings  # type: ignore[import-untyped]
from django.test import RequestFactory  # type: ignore[import-untyped]

import durably.backends.inngest.connect
import durably.backends.inngest.django
import durably.backends.inngest.fastapi
import durably.backends.inngest.flask
import durably.backends.inngest.tornado
from durably.backends.inngest import InngestBackend
from durably.backends.inngest.serving import serve_on_loopback
from durably.core import Context, function
from durably.testing.inngest import InngestEngine


async def _echo(value: Any) -> Any:
    return value


@function("served")
async def served(ctx: Context[int]) -> int:
    return await ctx.step.run("work", _echo, ctx.input + 1)


def _backend(**options: Any) -> InngestBackend:
    return InngestBackend(inngest.Inngest(app_id="app", is_production=False, **options), [served])


def _call() -> dict[str, Any]:
    event = {"name": "durably/start.app-served", "data": {"_durably": {"run": "r", "line": [], "value": 4}}, "id": "e"}
    ctx: dict[str, Any] = {"attempt": 0, "disable_immediate_execution": False, "max_attempts": 21, "run_id": "01"}
    ctx |= {"stack": {"stack": [], "current": 0}, "use_api": False}
    return {"ctx": ctx, "event": event, "events": [event], "steps": {}, "use_api": False}


def _check(status: int, body: bytes) -> None:
    (operation,) = json.loads(body)
    assert (status, operation["op"], operation["displayName"]) == (206, "StepRun", "work")
    assert list(operation["data"].values()) == [5]


QUERY = "/api/inngest?fnId=app-served&stepId=step"


@pytest.mark.asyncio
async def test_fastapi() -> None:
    app = fastapi.FastAPI()
    durably.backends.inngest.fastapi.serve(app, _backend())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        answer = await http.post(QUERY, json=_call())
    _check(answer.status_code, answer.content)


def test_flask() -> None:
    app = flask.Flask("test")
    durably.backends.inngest.flask.serve(app, _backend())
    answer = app.test_client().post(QUERY, json=_call())
    _check(answer.status_code, answer.data)


@pytest.mark.asyncio
async def test_django() -> None:
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["testserver"])
        django.setup()
    view = durably.backends.inngest.django.serve(_backend()).callback
    answer = view(RequestFactory().post(QUERY, json.dumps(_call()), content_type="application/json"))
    if not hasattr(answer, "content"):
        answer = await answer
    _check(answer.status_code, answer.content)


@pytest.mark.asyncio
async def test_tornado() -> None:
    app = tornado.web.Application()
    durably.backends.inngest.tornado.serve(app, _backend())
    (listener,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server = tornado.httpserver.HTTPServer(app)
    server.add_socket(listener)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as http:
        answer = await http.post(QUERY, json=_call())
    server.stop()
    _check(answer.status_code, answer.content)


@pytest.mark.asyncio
async def test_connect_makes_a_worker() -> None:
    worker = durably.backends.inngest.connect.connect(_backend(), instance_id="test")
    assert callable(worker.start)


@pytest.mark.asyncio
async def test_an_unsigned_request_is_refused_in_production() -> None:
    client = inngest.Inngest(app_id="app", is_production=True, signing_key="signkey-test-00", event_key="key")
    backend = InngestBackend(client, [served])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(backend.app), base_url="http://test") as http:
        unsigned = await http.post(QUERY, json=_call())
        forged = await http.post(QUERY, json=_call(), headers={"x-inngest-signature": "t=1&s=00"})
    assert [unsigned.status_code, forged.status_code] == [401, 401]


@pytest.mark.asyncio
async def test_a_backend_alone_serves_itself_over_tcp() -> None:
    engine = InngestEngine()
    async with serve_on_loopback(engine.api) as server:
        client = inngest.Inngest(app_id="app", api_base_url=server, event_api_base_url=server, is_production=False)
        async with InngestBackend(client, [served], now=engine.now, poll=0.01) as backend:
            assert await backend.invoke(served, 6) == 7
        await client._http_client._http_client.aclose()
        await engine.close()
