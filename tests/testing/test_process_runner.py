"""Experiments in processes that are killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from durably.core.errors import UnsupportedFeatureError
from durably.testing import NotDeterministicError, crash_matrix
from tests.testing import agents

pytestmark = pytest.mark.asyncio


async def test_processes_are_killed() -> None:
    report = await crash_matrix(agents.on_disk, "refund", mode="sigkill", state=agents.different_lines)
    assert report.ok, report
    assert {cell.at for cell in report.cells} >= {"before_first", "before_body", "after_effect", "after_commit"}


async def test_a_killed_process_repeats_an_effect() -> None:
    report = await crash_matrix(
        agents.on_disk, "refund", mode="sigkill", state=agents.lines, points="tool-charge/after_effect"
    )
    (cell,) = report.failures
    assert cell.violations[0].found.endswith("2 instead of 1")


async def test_the_order_of_a_set_differs_between_processes() -> None:
    names = ["ann", "bob", "cy", "dan", "eve", "fay"]
    with pytest.raises(NotDeterministicError, match="sorted"):
        await crash_matrix(agents.tell_all, names, mode="sigkill")


async def test_a_journal_in_memory_cannot_survive_a_process() -> None:
    with pytest.raises(UnsupportedFeatureError, match="sqlite"):
        await crash_matrix(agents.on_disk, "refund", mode="sigkill", backend="memory")


SCRIPT = """
import asyncio
from durably.core import Agent
from durably.testing import ScriptedModel, crash_matrix
agent = Agent("a", model=ScriptedModel("done"), instructions="")
asyncio.run(crash_matrix(agent, "go", mode="sigkill"))
"""


async def test_a_script_that_starts_processes_when_it_is_imported_is_refused(tmp_path: Path) -> None:
    """Each of them would import it, and start more."""
    (tmp_path / "script.py").write_text(SCRIPT)
    said = [
        await asyncio.to_thread(subprocess.run, [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
        for words in (["script.py"], ["-c", SCRIPT])
    ]
    assert 'put the code that begins it below if __name__ == "__main__":' in said[0].stderr
    assert "another process cannot import a program that is no file" in said[1].stderr
    assert [each.returncode for each in said] == [1, 1]
