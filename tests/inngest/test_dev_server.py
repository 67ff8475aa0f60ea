"""The same backend on a real dev server, where there is one: `INNGEST_DEV_SERVER` names its address or its binary."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import inngest
import pytest

from durably.backends.inngest import InngestBackend
from durably.core import Agent, Context, Event, RunStatus, function, tool
from durably.core.ids import new_id
from durably.testing import ScriptedModel, call

pytestmark = pytest.mark.timeout(120)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running dev server."""
    named = os.environ.get("INNGEST_DEV_SERVER", "")
    if named.startswith("http"):
        yield named
        return
    binary = named or shutil.which("inngest") or shutil.which("inngest-cli")
    if not binary:
        pytest.skip("no Inngest dev server: set INNGEST_DEV_SERVER to its address or binary, or put `inngest` on PATH")
    port, directory = _free_port(), tmp_path_factory.mktemp("inngest")
    ports = ["--port", str(port), "--connect-gateway-port", str(_free_port())]
    command = [binary, "dev", "--no-discovery", "--no-poll", "--retry-interval", "1", *ports]
    with (Path(directory) / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        try:
            _wait_until_up(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _wait_until_up(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"{address}/health", timeout=1).status_code == 200:
                return
        except httpx.HTTPError:
            assert process.poll() is None, "the dev server ended"
        time.sleep(0.1)
    raise AssertionError("the dev server did not come up")


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
