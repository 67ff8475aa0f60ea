"""The demo as a whole, called as a user calls it; its kills are real."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from durably.cli.address import open_client
from tests.examples.conftest import COMMAND, RunDemo, as_data, command_environment


def findings(data: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["title"]: (each["detail"], each["where"]) for each in data["findings"]}


def test_killed_three_times_it_finishes_and_its_numbers_are_true(demo: RunDemo, source: Path) -> None:
    data = as_data(demo(source, "--json"))
    assert data["ok"]
    assert all(law["held"] and not law["skipped"] for law in data["laws"])
    *killed, last = data["processes"]
    assert [process["point"] for process in killed] == ["in_body", "after_commit", "after_effect"]
    assert [process["step"] for process in killed] == ["gather[0]/tool-measure", "think:2", "tool-add_findings"]
    assert not last["killed"]
    assert len({process["pid"] for process in data["processes"]}) == 4
    assert len({start["pid"] for start in data["starts"]}) == 4
    lines = (source / "module.py").read_text().count("\n")
    assert findings(data) == {
        "Size": (f"4 files, {lines + 4} lines ({10 + 1} blank), {data['bytes']:,} bytes.", ""),
        "Largest file": (f'{lines} lines; it begins: """A module."""', "module.py"),
        "Longest function": ("bare, 6 lines, of 5 functions in all.", "module.py:11"),
        "Marks left behind": ("2 lines in 1 file with TODO, FIXME, XXX or HACK.", "module.py:15"),
        "Broad excepts": ("1 line in 1 file with except:, except Exception or except BaseException.", "module.py:14"),
        "Silenced checks": ("2 lines in 1 file with # type: ignore, # noqa or # pragma.", "module.py:3"),
        "Docstrings": ("1 of 2 public functions have none. Not valid Python: deep/broken.py.", ""),
    }


def test_more_kills_come_during_recovery_and_later(demo: RunDemo, source: Path) -> None:
    data = as_data(demo(source, "--json", "--kills", "8"))
    assert data["ok"], data["laws"]
    points = [process["point"] for process in data["processes"]]
    assert points[:2] == ["in_body", "after_commit"]
    assert points[-5:] == ["after_effect", "in_body", "after_effect", "before_result", None]
    assert set(points[2:-5]) == {"replay"}


def test_no_kill_starts_every_body_once_and_work_files_are_kept_when_asked(demo: RunDemo, source: Path) -> None:
    done = demo(source, "--json", "--kills", "0", "--keep")
    data = as_data(done)
    folder = Path(data["kept"])
    assert {"journal.db", "ledger.jsonl", "report.jsonl", "not-killed"} <= {path.name for path in folder.iterdir()}
    assert str(folder) in done.stderr
    assert data["ok"]
    assert len(data["processes"]) == 1
    assert len({start["step"] for start in data["starts"]}) == len(data["starts"]) == 24


def test_plain_lines_without_a_terminal(demo: RunDemo, source: Path) -> None:
    done = demo(source)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    for said in (
        "The model is scripted",
        "Left out: files that are links or devices (2), files that are not UTF-8 text (1)",
        "KILLED    SIGKILL in the body of gather[0]/tool-measure",
        "KILLED    SIGKILL between two steps, after think:2",
        "KILLED    SIGKILL after the effect of tool-add_findings, before its commit",
        "from the journal, no body ran",
        "The agent finished anyway. 3 kills, 4 processes",
    ):
        assert said in done.stdout
    assert "BROKEN" not in done.stdout
    assert not list((source.parent / "work").iterdir())
    last = done.stdout.splitlines()[-1]
    command = shlex.split(last.partition("See its run: ")[2])
    assert command[1:4] == ["ui", "audit", "--backend"]
    assert asyncio.run(status_of(command[4], "audit")) == "completed"


async def status_of(address: str, run_id: str) -> str:
    async with open_client(address) as client:
        return (await client.run(run_id)).status.value


def test_text_without_python(demo: RunDemo, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("one http://x\ntwo lorem ipsum [red]\x1b[31m\n")
    done = demo(folder, "--kills", "1", COLUMNS="40")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "durably ui" not in line]  # a command is not broken
    assert max(map(len, lines)) < 90
    assert "\x1b" not in done.stdout
    assert "Starts of each body, by the ledger" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "does not exist"),
        ([__file__], "is a file"),
        (["--kills", "13"], "--kills"),
        (["--model", "nobody:x"], "nobody:x"),
        (["--model", "claude"], "provider:model"),
    ],
)
def test_bad_input_is_refused(demo: RunDemo, arguments: list[str], said: str) -> None:
    done = demo(*arguments)
    assert done.returncode == 2
    assert said in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr


def test_nothing_to_audit(demo: RunDemo, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "it is empty" in demo(folder).stderr
    (folder / "a.bin").write_bytes(b"\0")
    done = demo(folder)
    assert done.returncode == 2
    assert "files that are not UTF-8 text (1)" in done.stderr


def test_help(demo: RunDemo) -> None:
    assert "--model" in demo("--help").stdout


MUTANTS = {
    "BROKEN Each finding is in the report exactly once": """
from examples.audit.report import Report
Report.add = Report.append
""",
    "never came about: after_effect": """
from durably.testing import Crash
if process == "3":
    Crash.hits = lambda self, point: False
""",
    "the reports differ": """
from examples.audit import scripted
if process == "3":
    scripted._count = lambda number, noun: "many"
""",
    "BROKEN No body started after its commit": """
from dataclasses import asdict
from durably.testing.ledger import EffectLedger, Entry, append_line
open_ledger = EffectLedger.__init__
def open_and_lie(self, path=None):
    append_line(path, json.dumps(asdict(Entry("started", "", "audit", "think", life=3, attempt=2, pid=os.getpid()))))
    open_ledger(self, path)
if process == "4":
    EffectLedger.__init__ = open_and_lie
""",
    "ended by itself with code 7": """
if process == "2":
    os.kill = lambda *_: os._exit(7)
""",
    "tool-list_files started again in process 2": """
from durably.backends.replay.steps import ReplaySteps
take = ReplaySteps.take
async def forget(self, scope, key, kind, asked):
    record = await take(self, scope, key, kind, asked)
    return None if key == "tool-list_files" and self.records.row.crashes else record
ReplaySteps.take = forget
""",
}
MUTATION = """
import json, os, sys
process = sys.orig_argv[-1] if sys.orig_argv[-2:-1] == ["examples.audit.demo.worker:work"] else ""
"""


@pytest.mark.parametrize("said", MUTANTS)
def test_a_broken_library_is_found_out(demo: RunDemo, source: Path, tmp_path: Path, said: str) -> None:
    (tmp_path / "mutant").mkdir()
    (tmp_path / "mutant" / "sitecustomize.py").write_text(MUTATION + MUTANTS[said])
    path = os.pathsep.join([str(tmp_path / "mutant"), command_environment(tmp_path)["PYTHONPATH"]])
    kills = {"ended by itself with code 7": "2", "tool-list_files started again in process 2": "1"}.get(said, "3")
    done = demo(source, "--kills", kills, PYTHONPATH=path)
    assert done.returncode == 1
    assert said in re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert "BROKEN" in done.stdout or said in done.stderr


def test_a_live_table_in_a_terminal(source: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    env = command_environment(tmp_path, COLUMNS="80", LINES="24", NO_COLOR="1")
    with subprocess.Popen([*COMMAND, str(source), "--pace", "0.05"], stdout=follower, env=env) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
    os.close(leader)
    text = shown.decode()
    assert process.returncode == 0
    assert "\x1b[3" not in text.replace("\x1b[3A", "").replace("\x1b[2K", "")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"gather\[0]/tool-measure +✗ KILLED +✓", plain)
    assert "at work, " in plain
    lines = [line for line in plain.replace("\r", "\n").splitlines() if "durably ui" not in line]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_it(source: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = [*COMMAND, str(source), "--pace", "5"]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=command_environment(tmp_path),
        # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        assert process.stdout is not None
        child = next(int(found[1]) for line in process.stdout if (found := re.search(r"\(pid (\d+)\)", line)))
        assert alive(child)
        process.send_signal(number)
        process.stdout.read()
    assert process.returncode in (130, 143, -signal.SIGKILL)
    for _ in range(500):
        if not alive(child):
            break
        time.sleep(0.01)
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_kill_that_nobody_planned_is_survived_too(source: Path, tmp_path: Path) -> None:
    arguments = [*COMMAND, str(source), "--pace", "0.2"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=command_environment(tmp_path))
    with process:
        assert process.stdout is not None
        child = next(int(found[1]) for line in process.stdout if (found := re.search(r"\(pid (\d+)\)", line)))
        os.kill(child, signal.SIGKILL)
        rest = process.stdout.read()
    assert process.returncode == 0, rest
    assert "SIGKILL from outside" in rest
    assert "4 kills, 5 processes" in rest


PROVIDER = """
from durably.core import ModelError
from durably.testing import ScriptedModel, call

def make(name):
    if name == "keyless":
        return ScriptedModel(ModelError("set SOME_KEY", provider="other", model=name, retriable=False))
    return ScriptedModel(
        call("list_files"),
        call("read_file", path="nowhere.py"),
        call("read_file", path="module.py"),
        [call("add_findings", findings=[]), call("add_findings", findings=[{"title": "One", "detail": "It is one."}])],
        "It is fine.",
    )
"""


@pytest.fixture
def other_provider(tmp_path: Path) -> str:
    """A search path with an installed provider: its model works unlike the scripted one, and makes mistakes."""
    folder = tmp_path / "installed"
    (folder / "other-1.dist-info").mkdir(parents=True)
    (folder / "other-1.dist-info" / "METADATA").write_text("Name: other\nVersion: 1\n")
    (folder / "other-1.dist-info" / "entry_points.txt").write_text("[durably.models]\nother = other_provider:make\n")
    (folder / "other_provider.py").write_text(PROVIDER)
    return os.pathsep.join([str(folder), command_environment(tmp_path)["PYTHONPATH"]])


def test_another_model(demo: RunDemo, source: Path, other_provider: str) -> None:
    data = as_data(demo(source, "--json", "--model", "other:one", PYTHONPATH=other_provider))
    assert data["ok"], data["laws"]
    assert data["answer"] == "It is fine."
    assert data["findings"] == [{"title": "One", "detail": "It is one.", "where": ""}]
    assert [law["law"] for law in data["laws"] if law["skipped"]] == ["All as in a run nobody killed"]
    assert [process["point"] for process in data["processes"]] == ["in_body", "after_commit", "after_effect", None]


def test_a_model_that_fails_says_why(demo: RunDemo, source: Path, other_provider: str) -> None:
    done = demo(source, "--model", "other:keyless", PYTHONPATH=other_provider)
    assert done.returncode == 1
    assert "What it reads of the files is sent to it" in re.sub(r"\s+", " ", done.stdout)
    assert "given up  think" in done.stdout
    assert "the agent failed" in done.stderr
    assert "set SOME_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_worker_starts_with_little() -> None:
    unwanted = "{'typer', 'rich', 'pytest', 'hypothesis', 'anthropic', 'temporalio'}"
    code = f"import sys, examples.audit.demo.worker; print({unwanted} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "set()"
