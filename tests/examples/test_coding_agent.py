"""The coding agent, with its MCP server as a program and, where it is crashed everywhere, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.core import Agent
from durably.mcp import MCPServer
from durably.testing import crash_matrix
from examples import coding_agent
from examples.coding_agent import CHECK, RIGHT, TASK, build, script
from examples.scratch_server import make
from tests.mcp.served import served

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_no_crash_changes_the_code(tmp_path: Path, backend: str) -> None:
    def fresh() -> tuple[Agent, Path]:
        (tmp_path / "check.py").write_text(CHECK)
        (tmp_path / "add.py").unlink(missing_ok=True)
        return build(MCPServer("scratch", url=url), script(first=RIGHT)), tmp_path

    async with served(make(tmp_path)) as url:
        report = await crash_matrix(fresh, TASK, backend=backend, state=lambda folder: (folder / "add.py").read_text())
    assert report.ok, report
    assert not report.error, report
    assert (tmp_path / "add.py").read_text() == RIGHT


async def test_the_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await coding_agent.main(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "write_file: add.py: 32 characters",
        "run_checks: failed: AssertionError",
        "write_file: add.py: 32 characters",
        "run_checks: passed: all is well",
        "It is done: passed: all is well",
    ]
