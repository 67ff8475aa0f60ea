"""Production: signed calls, the key as a bearer token, and the REST API in the place of GraphQL."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import inngest
import pytest

from durably.backends.inngest import InngestBackend
from durably.backends.inngest.sdk import ServerClient
from durably.backends.inngest.server.rest import RestApi
from durably.core import Agent, Context, Event, Function, InvokeError, RunStatus, function, tool
from durably.core.errors import RunNotFoundError, UnsupportedFeatureError
from durably.core.ids import new_id
from durably.testing import ScriptedModel, call
from durably.testing.inngest import InngestEngine

KEY = "signkey-test-12345678"

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@tool
async def look_up(name: str) -> str:
    """Look something up."""
    return f"{name} found"


async def _echo(value: Any) -> Any:
    return value


@function("failing", retries=0)
async def failing(ctx: Context[None]) -> None:
    await ctx.step.run("work", _echo, 1)
    raise ValueError("no")


@function("exact")
async def exact(ctx: Context[None]) -> Any:
    return {"data": await ctx.step.run("make", _echo, 2**60 + 1)}


@function("sleeping")
async def sleeping(ctx: Context[None]) -> None:
    await ctx.step.sleep("nap", 3600)


@function("told", triggers=["cloud/told"])
async def told(ctx: Context[Any]) -> Any:
    return ctx.input


model = ScriptedModel([call("look_up", name="a"), call("look_up", name="b")], "Both found.")
agent = Agent("agent", model=model, instructions="You look things up.", tools=[look_up])


@pytest.fixture(params=["engine", "server"])
def backend(request: pytest.FixtureRequest) -> InngestBackend:
    """On the harness in production; on a dev server, which has the same REST API and wants no key."""
    functions: list[Function[Any, Any]] = [agent, failing, exact, sleeping, told]
    if request.param == "engine":
        engine = InngestEngine(signing_key=KEY)
        return InngestBackend(engine.client(), functions, serve=engine.serve, now=engine.now, poll=0.001, grace=0.5)
    server = request.getfixturevalue("server")
    client = inngest.Inngest(
        app_id=f"app{new_id()[:8]}", api_base_url=server, event_api_base_url=server, is_production=False
    )
    backend = InngestBackend(client, functions, poll=0.05)
    backend._runs.api = RestApi(ServerClient(client))
    return backend


async def test_a_run_is_started_waited_for_and_read(backend: InngestBackend) -> None:
    async with backend:
        run = await backend.start(agent, "Look up a and b.", run_id=f"run-{new_id()}")
        result = await run.result()
        assert (result.text, result.tool_calls, len(result.messages)) == ("Both found.", 2, 5)
        history = await run.history()
        keys = [record.key for record in history.steps()]
        assert keys[:3] == ["load-context", "load-history", "think"]
        assert len(keys) == 6
        assert all(record.at for record in history)


async def test_a_result_is_exact(backend: InngestBackend) -> None:
    async with backend:
        run = await backend.start(exact)
        assert await run.result() == {"data": 2**60 + 1}
        assert [record.value for record in (await run.history()).steps()] == [2**60 + 1]


async def test_a_failure_is_told(backend: InngestBackend) -> None:
    async with backend:
        run = await backend.start(failing)
        with pytest.raises(InvokeError, match="no") as caught:
            await run.result()
        assert caught.value.error_type == "ValueError"
        last = (await run.history()).records[-1]
        assert (last.status, last.error and last.error["type"]) == ("failed", "ValueError")


async def test_a_run_is_cancelled(backend: InngestBackend) -> None:
    async with backend:
        run = await backend.start(sleeping)
        await run.cancel()
        for _ in range(100):
            if (await run.refresh()).status.final:
                break
            await asyncio.sleep(0.05)
        assert run.status is RunStatus.CANCELLED


async def test_what_the_rest_api_does_not_show_is_said(backend: InngestBackend) -> None:
    async with backend:
        await backend.send(Event("cloud/told", 5))
        with pytest.raises(UnsupportedFeatureError, match="no list of runs"):
            await backend.runs()
        with pytest.raises(RunNotFoundError):
            await backend.run("nobody-started-it")


async def test_without_the_key_nothing_is_answered() -> None:
    engine = InngestEngine(signing_key=KEY)
    functions = [failing]
    other = engine.client(signing_key="signkey-test-87654321")
    with pytest.raises(ConnectionError, match="Unauthorized"):
        async with InngestBackend(other, functions, serve=engine.serve, now=engine.now):
            pass
    assert not engine.functions
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        await InngestBackend(other, now=engine.now).run("any")


async def test_a_call_signed_with_another_key_runs_nothing() -> None:
    engine = InngestEngine(signing_key=KEY, backoff=1.0)
    backend = InngestBackend(engine.client(), [failing], serve=engine.serve, now=engine.now, poll=0.001)
    async with backend:
        engine.signing_key = "signkey-test-87654321"
        engine.receive({"name": "durably/start.app-failing", "data": {}}, None, 1)
        for _ in range(500):
            await asyncio.sleep(0)
            if engine.idle and not engine.advance():
                break
    (run,) = engine.runs.values()
    assert not run.trace
    assert run.status == "FAILED"
