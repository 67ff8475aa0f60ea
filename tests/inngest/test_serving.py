"""Each way to make the functions reachable, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
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
from inngest._internal import net

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


QUERY = "/api/inngest?fnId=app-served&stepId=step"
KEY = "signkey-test-12345678"

Answer = tuple[int, bytes]


def _call() -> bytes:
    event = {"name": "durably/start.app-served", "data": {"_durably": {"run": "r", "line": [], "value": 4}}, "id": "e"}
    ctx: dict[str, Any] = {"attempt": 0, "disable_immediate_execution": False, "max_attempts": 21, "run_id": "01"}
    ctx |= {"stack": {"stack": [], "current": 0}, "use_api": False}
    return json.dumps({"ctx": ctx, "event": event, "events": [event], "steps": {}, "use_api": False}).encode()


async def over_asgi(backend: InngestBackend, headers: dict[str, str]) -> Answer:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(backend.app), base_url="http://test") as http:
        answer = await http.post(QUERY, content=_call(), headers=headers)
    return answer.status_code, answer.content


async def over_fastapi(backend: InngestBackend, headers: dict[str, str]) -> Answer:
    app = fastapi.FastAPI()
    durably.backends.inngest.fastapi.serve(app, backend)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        answer = await http.post(QUERY, content=_call(), headers=headers)
    return answer.status_code, answer.content


async def over_flask(backend: InngestBackend, headers: dict[str, str]) -> Answer:
    app = flask.Flask("test")
    durably.backends.inngest.flask.serve(app, backend)
    answer = await asyncio.to_thread(app.test_client().post, QUERY, data=_call(), headers=headers)
    return answer.status_code, answer.data


async def over_django(backend: InngestBackend, headers: dict[str, str]) -> Answer:
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["testserver"])
        django.setup()
    view = durably.backends.inngest.django.serve(backend).callback
    request = RequestFactory().post(QUERY, _call(), content_type="application/json", headers=headers)
    answer = view(request)
    if not hasattr(answer, "content"):
        answer = await answer
    return answer.status_code, answer.content


async def over_tornado(backend: InngestBackend, headers: dict[str, str]) -> Answer:
    app = tornado.web.Application()
    durably.backends.inngest.tornado.serve(app, backend)
    (listener,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server = tornado.httpserver.HTTPServer(app)
    server.add_socket(listener)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as http:
        answer = await http.post(QUERY, content=_call(), headers=headers)
    server.stop()
    return answer.status_code, answer.content


WAYS = [over_asgi, over_fastapi, over_flask, over_django, over_tornado]
Way = Callable[[InngestBackend, dict[str, str]], Awaitable[Answer]]


def _check(answer: Answer) -> None:
    status, body = answer
    (operation,) = json.loads(body)
    assert (status, operation["op"], operation["displayName"]) == (206, "StepRun", "work")
    assert list(operation["data"].values()) == [5]


@pytest.mark.asyncio
@pytest.mark.parametrize("serve", WAYS)
async def test_a_call_is_answered(serve: Way) -> None:
    backend = InngestBackend(inngest.Inngest(app_id="app", is_production=False), [served])
    _check(await serve(backend, {}))


@pytest.mark.asyncio
@pytest.mark.parametrize("serve", WAYS)
async def test_in_production_only_a_signed_call_is_answered(serve: Way) -> None:
    client = inngest.Inngest(app_id="app", is_production=True, signing_key=KEY, event_key="key")
    backend = InngestBackend(client, [served])
    good = str(net.sign_request(_call(), KEY))
    forged = str(net.sign_request(_call(), "signkey-test-87654321"))
    other = str(net.sign_request(_call().replace(b"4", b"5"), KEY))
    for refused in (None, "t=1&s=00", forged, other):
        status, body = await serve(backend, {} if refused is None else {"x-inngest-signature": refused})
        assert status == 401
        assert b"work" not in body
    _check(await serve(backend, {"x-inngest-signature": good}))


@pytest.mark.asyncio
async def test_connect_makes_a_worker() -> None:
    """What it does is seen on a real server only: see test_dev_server.py."""
    backend = InngestBackend(inngest.Inngest(app_id="app", is_production=False), [served])
    worker = durably.backends.inngest.connect.connect(backend, instance_id="test")
    assert callable(worker.start)


@pytest.mark.asyncio
async def test_a_backend_alone_serves_itself_over_tcp() -> None:
    engine = InngestEngine()
    async with serve_on_loopback(engine.api) as server:
        client = inngest.Inngest(app_id="app", api_base_url=server, event_api_base_url=server, is_production=False)
        async with InngestBackend(client, [served], now=engine.now, poll=0.01) as backend:
            assert await backend.invoke(served, 6) == 7
        await client._http_client._http_client.aclose()
        await engine.close()
