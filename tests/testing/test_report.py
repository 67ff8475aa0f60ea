"""What a report shows: JSON, a page, a table, a bar."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from durably.core import Context, Trace, function
from durably.testing import crash_matrix
from durably.testing.crash.run_rows import run_rows
from durably.testing.crash.terminal import print_report, progress_bar
from tests.testing import agents

pytestmark = pytest.mark.asyncio


async def test_a_report_is_json_and_a_page() -> None:
    report = await crash_matrix(agents.unkeyed, "<refund>", state=agents.paid)
    data = json.loads(report.to_json())
    assert data["ok"] is False
    assert data["counts"]["failed"] == 1
    assert Trace.model_validate(data["trace"]) == report.trace
    page = report.to_html()
    assert 'class="failed"' in page
    failed = next(cell for cell in report.cells if cell.outcome == "failed")
    assert failed.trace is not None
    assert [each["attempts"] for each in run_rows(failed.trace) if each["key"] == failed.step] == [
        ["lost", "completed"]
    ]
    assert json.dumps(run_rows(report.trace)[0], ensure_ascii=False) in page
    assert "</script><script>" in page
    assert "http" not in page  # nothing is fetched


async def test_a_table_is_printed() -> None:
    report = await crash_matrix(agents.unkeyed, "refund", state=agents.paid)
    console = Console(record=True, width=160, file=io.StringIO())
    print_report(report, console)
    text = console.export_text()
    assert "gather[0]/tool-charge" in text
    assert "at-least-once" in text
    assert "reproduce:" in text


async def test_a_bar_is_drawn() -> None:
    with progress_bar() as bar:
        report = await crash_matrix(agents.look_up, "ann", progress=bar)
    assert report.ok


async def test_a_failure_without_a_crash_is_in_the_picture() -> None:
    @function("leaks-secrets")
    async def leaks(ctx: Context[str]) -> str:
        return await ctx.step.run("log-in", lambda: "hunter22")

    report = await crash_matrix(leaks, "ann", secrets=["hunter22"])
    assert "<th>without a crash</th>" in report.to_html()
