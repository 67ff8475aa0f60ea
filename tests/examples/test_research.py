"""Research by agents that work at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, AgentInput
from durably.testing import crash_matrix
from examples import research
from examples.research import LIBRARY, QUESTION, Brief, Report, build, script

pytestmark = pytest.mark.asyncio

ASKED = AgentInput[Brief](message=QUESTION, context=Brief(audience="all", shelf=list(LIBRARY)))


async def test_the_parts_are_looked_into_at_the_same_time() -> None:
    agent = build(*script())
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, ASKED)
        result = await run.result()
        children = await backend.runs(parent=run.id, function="researcher")
        begun = {record.key for record in await run.history() if record.kind == "invoke"}
    assert isinstance(result.output, Report)
    assert {each.topic: each.text for each in result.output.findings} == LIBRARY
    assert begun == {f"gather[{index}]/tool-research" for index in range(3)}
    assert len(children) == 3
    assert result.usage.input_tokens == (2 + 3 * 2) * 10, "of the lead and of all researchers"


def fresh() -> Agent[Report, Brief]:
    return build(*script())


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_no_crash_changes_the_report(backend: str) -> None:
    report = await crash_matrix(fresh, ASKED.model_dump(), backend=backend)
    assert report.ok, report
    assert not report.error, report


async def test_the_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await research.main(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Three harvests", f"- tea: {LIBRARY['tea']}"]
    assert lines[3] == "- cocoa: readers like growers see nothing on cocoa", "the context holds for delegates"
