"""Experiments in processes that are killed."""

from __future__ import annotations

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
