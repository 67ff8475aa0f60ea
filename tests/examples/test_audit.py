"""The audit as a program of its own, and its agent, crashed at every point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durably.core import Agent, SQLiteSessions
from durably.testing import crash_matrix
from examples.audit.agent import audit_agent, question
from examples.audit.corpus import Corpus, Root
from examples.audit.report import Finding, Report
from examples.audit.scripted import ScriptedAuditor
from tests.examples.conftest import SOURCE, command_environment

COMMAND = [sys.executable, "-m", "examples.audit"]


def audit(folder: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    env = command_environment(folder, **environment)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=50, check=False)


def test_it_audits_a_directory_and_remembers_it(source: Path, tmp_path: Path) -> None:
    done = audit(tmp_path, source)
    assert (done.returncode, done.stderr) == (0, "")
    lines = SOURCE.count("\n")
    answer = (
        f"I looked at 4 files (2 .py, 1 .md, 1 .txt) with {lines + 4} lines. The first thing to split up is bare, 6 "
        "lines long, in module.py. A mark such as TODO stands in 2 lines."
    )
    assert done.stdout.splitlines() == [
        f"- Size: 4 files, {lines + 4} lines (11 blank), {Corpus([Root(path=source)]).bytes} bytes.",
        f'- Largest file: {lines} lines; it begins: """A module.""" (module.py)',
        "- Longest function: bare, 6 lines, of 5 functions in all. (module.py:11)",
        "- Marks left behind: 2 lines in 1 file with TODO, FIXME, XXX or HACK. (module.py:15)",
        "- Broad excepts: 1 line in 1 file with except:, except Exception or except BaseException. (module.py:14)",
        "- Silenced checks: 2 lines in 1 file with # type: ignore, # noqa or # pragma. (module.py:3)",
        "- Docstrings: 1 of 2 public functions have none. Not valid Python: deep/broken.py.",
        answer,
    ]
    again = audit(tmp_path, source)
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()
    assert "holds an audit: this one goes on with it" in again.stdout
    assert len(Report(tmp_path / ".durably" / "audit" / "report.jsonl").lines()) == 7


KILL = """
import os
from examples.audit.report import Report
append = Report.append
def append_and_die(self, id, finding):
    append(self, id, finding)
    os.kill(os.getpid(), 9)
Report.append = append_and_die
"""


def test_killed_after_each_finding_it_goes_on(source: Path, tmp_path: Path) -> None:
    straight = audit(tmp_path, source, "--state", "straight").stdout.splitlines()
    (tmp_path / "mutant").mkdir()
    (tmp_path / "mutant" / "sitecustomize.py").write_text(KILL)
    path = os.pathsep.join([str(tmp_path / "mutant"), command_environment(tmp_path)["PYTHONPATH"]])
    for found in range(1, 8):
        killed = audit(tmp_path, source, "--state", "state", PYTHONPATH=path)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(Report(tmp_path / "state" / "report.jsonl").lines()) == found
    done = audit(tmp_path, source, "--state", "state", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == straight


@pytest.mark.parametrize(("arguments", "said"), [(["missing"], "missing is not a directory"), ([], "directory")])
def test_bad_input_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = audit(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_an_unknown_model_is_refused(source: Path, tmp_path: Path) -> None:
    done = audit(tmp_path, source, "--model", "nobody:x")
    assert done.returncode == 1
    assert "nobody:x" in done.stderr
    assert "Traceback" not in done.stderr


def small_audit(folder: Path) -> tuple[Agent, Report]:
    files = folder / "files"
    files.mkdir(exist_ok=True)
    (files / "a.py").write_text(SOURCE)
    (files / "b.md").write_text("# Notes\n")
    report = Report(folder / "report.jsonl")
    sessions = SQLiteSessions(folder / "sessions.db")
    return audit_agent(lambda: Corpus([Root(path=files)]), ScriptedAuditor(), report, sessions=sessions), report


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_crash_anywhere_loses_no_finding_and_doubles_none(backend: str) -> None:
    report = await crash_matrix(small_audit, question("a folder").model_dump(), backend=backend, state=Report.lines)
    assert report.ok, report
    assert report.error == ""
    assert {cell.at for cell in report.cells} >= {"in_body", "after_effect", "after_commit", "before_result"}


def appending(folder: Path) -> tuple[Agent, Report]:
    """The same agent with a report that looks at no id."""
    agent, report = small_audit(folder)
    report.add = report.append  # type: ignore[method-assign]
    return agent, report


@pytest.mark.asyncio
async def test_without_its_idempotency_key_it_would_double_findings() -> None:
    report = await crash_matrix(
        appending, question("a folder").model_dump(), state=Report.lines, points="tool-add_findings*/after_effect"
    )
    assert [cell.label for cell in report.failures] == [
        "tool-add_findings/after_effect",
        "tool-add_findings:1/after_effect",
    ]


def test_a_finding_is_added_once(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.jsonl")
    assert report.findings() == []
    one = Finding(title="é", detail="x\ny")
    for _ in range(2):
        report.add("1", one)
    report.add("2", one)
    assert report.findings() == [one, one]
