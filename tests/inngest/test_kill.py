"""The app's process is killed by SIGKILL in the middle of a tool, over real connections."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import inngest
import pytest

from durably.backends.inngest import InngestBackend
from durably.backends.inngest.serving import serve_on_loopback
from durably.core import AgentResult, FunctionRef
from durably.testing.inngest import InngestEngine

ROOT = Path(__file__).parent.parent.parent


async def _start(server: str, ledger: Path) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.inngest.kill_child",
        server,
        str(ledger),
        cwd=ROOT,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONWARNINGS": "ignore"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"up\n"
    return child


@pytest.mark.asyncio
async def test_the_run_goes_on_when_the_app_is_back(tmp_path: Path) -> None:
    engine, ledger = InngestEngine(backoff=1.0), tmp_path / "ledger"
    agent: FunctionRef[str, AgentResult] = FunctionRef("agent", input_type=str, output_type=AgentResult)
    async with serve_on_loopback(engine.api) as server:
        child = await _start(server, ledger)
        client = inngest.Inngest(app_id="app", api_base_url=server, event_api_base_url=server, is_production=False)
        async with InngestBackend(client, poll=0.01, now=engine.now) as backend:
            run = await backend.start(agent, "Charge order 7.", run_id="order-7")
            assert await child.wait() == -signal.SIGKILL
            child = await _start(server, ledger)
            result = await run.result()
        child.kill()
        await child.wait()
        await client._http_client._http_client.aclose()
        await engine.close()
    assert result.text == "Done."
    keys, attempts = zip(*[line.split() for line in ledger.read_text().splitlines()], strict=True)
    assert len(set(keys)) == 1, "one key for whoever has the effect"
    assert attempts == ("1", "2")
