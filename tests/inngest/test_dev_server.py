"""The same backend on a real dev server, where there is one."""

from __future__ import annotations

import asyncio
from typing import Any

import inngest
import pytest
from inngest.connect import ConnectionState

from durably.backends.inngest import InngestBackend
from durably.backends.inngest.connect import connect
from durably.core import Agent, Context, Event, RunStatus, function, tool
from durably.core.ids import new_id
from durably.testing import ScriptedModel, call

pytestmark = pytest.mark.timeout(120)


def _client(server: str) -> inngest.Inngest:
    return inngest.Inngest(
        app_id=f"app-{new_id()[:8]}", api_base_url=server, event_api_base_url=server, is_production=False
    )


async def _echo(value: Any) -> Any:
    return value


@tool
async def look_up(name: str) -> str:
    """Look something up."""
    return f"{name} found"


@pytest.mark.asyncio
async def test_an_agent_runs(server: str) -> None:
    model = ScriptedModel([call("look_up", name="a"), call("look_up", name="b")], "Both found.")
    agent = Agent("agent", model=model, instructions="You look things up.", tools=[look_up])
    async with InngestBackend(_client(server), [agent]) as backend:
        run = await backend.start(agent, "Look up a and b.", run_id=f"run-{new_id()}")
        result = await run.result()
        assert (result.text, result.tool_calls) == ("Both found.", 2)
        keys = [record.key for record in (await run.history()).steps()]
    assert keys[:3] == ["load-context", "load-history", "think"]


@pytest.mark.asyncio
async def test_children_events_sleeps_and_failures(server: str) -> None:
    name = f"told-{new_id()}"

    @function("child", retries=0)
    async def child(ctx: Context[int]) -> int:
        if ctx.input < 0:
            raise ValueError("negative")
        return ctx.input + 1

    @function("parent", retries=0)
    async def parent(ctx: Context[None]) -> list[Any]:
        step = ctx.step
        found: list[Any] = [await step.invoke("call", child, 1)]
        try:
            await step.invoke("call", child, -1)
        except Exception as error:
            found.append(type(error).__name__)
        event, _ = await step.gather(
            lambda: step.wait_for_event("wait", name, match={"n": 7}, timeout=30),
            lambda: step.send_event("tell", Event(name, {"n": 7})),
        )
        await step.sleep("nap", 0.7)
        return [*found, event and event.data]

    async with InngestBackend(_client(server), [parent, child]) as backend:
        assert await backend.invoke(parent) == [2, "InvokeError", {"n": 7}]


@pytest.mark.asyncio
async def test_cancelling_a_run_cancels_its_child(server: str) -> None:
    began, running = [], asyncio.Event()

    @function("long")
    async def long(ctx: Context[None]) -> None:
        began.append(ctx.run_id)
        running.set()
        await ctx.step.sleep("nap", 3600)

    @function("waiting")
    async def waiting(ctx: Context[None]) -> None:
        await ctx.step.invoke("call", long)

    async with InngestBackend(_client(server), [waiting, long]) as backend:
        run = await backend.start(waiting)
        await running.wait()
        await run.cancel()
        child = await backend.run(began[0])
        for _ in range(200):
            if (await child.refresh()).status.final:
                break
            await asyncio.sleep(0.05)
        assert (run.status, child.status) == (RunStatus.CANCELLED, RunStatus.CANCELLED)


@pytest.mark.asyncio
async def test_connect_runs_functions_without_an_address(server: str) -> None:
    model = ScriptedModel([call("look_up", name="a"), call("look_up", name="b")], "Both found.")
    agent = Agent("agent", model=model, instructions="You look things up.", tools=[look_up])
    client = _client(server)
    backend = InngestBackend(client, [agent])
    worker = connect(backend, instance_id="test", shutdown_signals=[])
    running = asyncio.create_task(worker.start())
    try:
        await worker.wait_for_state(ConnectionState.ACTIVE)
        result = await backend.invoke(agent, "Look up a and b.")
        assert (result.text, result.tool_calls) == ("Both found.", 2)
    finally:
        await worker.close(wait=True)
        await running
