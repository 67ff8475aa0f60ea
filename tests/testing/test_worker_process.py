"""Worker processes: what they report, how they end, and the next one after a kill. The kills are real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import DefinitionError
from durably.core.steps import Point
from durably.testing import Crash, EffectLedger, WorkerProcess, restart_until_end
from durably.testing.crash.fork_server import ForkServer
from durably.testing.laws import append_only, ends_once, limited_starts, no_start_after_commit
from durably.testing.snapshot import Snapshot
from tests.testing import worker_targets

Start = Callable[..., WorkerProcess]


@pytest.fixture(params=["fresh", "forked"])
def start_paying(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a process that runs the agent, in each way there is."""
    if request.param == "fresh":
        yield lambda *args, **options: WorkerProcess.start(worker_targets.pay_on_disk, *args, **options)
        return
    server = ForkServer(worker_targets.pay_on_disk, hash_seed=1)
    yield server.start
    server.close()


CRASHES = [Crash("tool-charge", "after_effect"), Crash("think", "replay"), Crash("tool-charge", "after_commit")]


def test_a_run_ends_in_spite_of_planned_kills(start_paying: Start, tmp_path: Path) -> None:
    def start(number: int, crashes: Sequence[Crash]) -> WorkerProcess:
        return start_paying(str(tmp_path), crashes=crashes, number=number)

    processes: list[WorkerProcess] = []
    snapshots: list[Snapshot] = []
    for process in restart_until_end(start, CRASHES):
        processes.append(process)
        reports = list(process.follow())
        assert reports == process.reports
        if process.was_killed:
            assert process.crash is not None
            assert reports[-1].killed
            assert reports[-1].point == process.crash == reports[-2].point
            EffectLedger(tmp_path / "ledger.jsonl").crashed(process.crash)
            snapshots.append(Snapshot.of_journal(SQLiteJournal(tmp_path / "runs.db")))
    assert [process.number for process in processes] == [1, 2, 3, 4]
    points = [(process.crash.key, process.crash.name) for process in processes if process.crash]
    assert points == [(crash.step, crash.at) for crash in CRASHES]
    last = processes[-1]
    assert (last.returncode, last.error) == (0, "")
    assert last.result == {"text": "done", "pid": last.pid}
    assert len({process.pid for process in processes}) == 4
    ledger = EffectLedger(tmp_path / "ledger.jsonl")
    assert (ledger.effects("tool-charge"), ledger.effects("think"), ledger.life) == (2, 1, 3)
    after = Snapshot.of_journal(SQLiteJournal(tmp_path / "runs.db"))
    assert [each for before in snapshots for each in append_only(before, after)] == []
    assert [*no_start_after_commit(ledger), *limited_starts(ledger.entries, after), *ends_once(after)] == []


def test_points_are_reported_while_the_process_lives() -> None:
    with WorkerProcess.start(worker_targets.wait_for_ever) as process:
        reports = process.follow()
        first = next(reports)
        assert first.point == Point("before_body", "f", "r", "a")
        assert not first.killed
        assert process.returncode is None
    assert process.was_killed
    assert process.crash is None


def test_what_is_printed_goes_to_the_log_and_not_among_the_reports(tmp_path: Path) -> None:
    value = {"text": "é" * 100_000}  # longer than a pipe holds
    process = WorkerProcess.start(worker_targets.print_and_return, value, log=tmp_path / "log")
    process.wait()
    assert process.result == value
    assert [report.point.key for report in process.reports] == ["a"]
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["said on standard error", "said on standard output"]


@pytest.mark.parametrize(
    ("target", "code", "error"),
    [
        (worker_targets.fail, 1, ("ConnectionError", "the bank is closed")),
        (worker_targets.exit_at_once, 7, ("", "")),
        (worker_targets.kill_itself, -signal.SIGKILL, ("", "")),
    ],
)
def test_how_it_ended(target: Callable[..., Any], code: int, error: tuple[str, str], tmp_path: Path) -> None:
    process = WorkerProcess.start(target, log=tmp_path / "log")
    process.wait()
    assert process.returncode == code
    assert (process.error_type, process.error) == error
    assert ("ConnectionError: the bank is closed" in (tmp_path / "log").read_text()) == (code == 1)


def test_kills_that_nobody_planned_come_to_an_end() -> None:
    started: list[int] = []

    def start(number: int, crashes: Sequence[Crash]) -> WorkerProcess:
        started.append(number)
        return WorkerProcess.start(worker_targets.kill_itself, number=number)

    with pytest.raises(RuntimeError, match="the workers were killed 3 times; something else kills them"):
        list(restart_until_end(start, most_unplanned=2))
    assert started == [1, 2, 3]


def test_a_function_that_another_process_cannot_find_is_refused() -> None:
    with pytest.raises(DefinitionError, match="not at the top of a module"):
        WorkerProcess.start(lambda probe: None)


def test_fork_servers_differ_in_how_strings_hash() -> None:
    seen = []
    for seed in (1, 2, 1):
        server = ForkServer(worker_targets.hash_of_a_string, hash_seed=seed)
        process = server.start()
        process.wait()
        seen.append(process.result)
        server.close()
    assert seen[0] == seen[2] != seen[1]


def test_a_fork_server_that_has_ended_says_so() -> None:
    server = ForkServer(worker_targets.hash_of_a_string, hash_seed=1)
    server.close()
    with pytest.raises((RuntimeError, ValueError)):
        server.start()


CODE = """
import sys
from durably.testing import WorkerProcess
from durably.testing.crash.fork_server import ForkServer
from tests.testing import worker_targets

if sys.argv[1] == "fresh":
    process = WorkerProcess.start(worker_targets.wait_for_ever)
else:
    process = ForkServer(worker_targets.wait_for_ever, hash_seed=1).start()
for report in process.follow():
    print(process.pid, flush=True)
"""


@pytest.mark.parametrize("how", ["fresh", "forked"])
def test_no_worker_outlives_its_parent(how: str) -> None:
    path = os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])
    parent = subprocess.Popen(
        [sys.executable, "-c", CODE, how], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    for _ in range(500):
        if not is_running(pid):
            break
        time.sleep(0.01)
    assert not is_running(pid)


def test_the_example_in_the_docs_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    for name, block in re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```', page, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(block, encoding="utf-8")
    path = os.pathsep.join(str(Path(each).resolve()) for each in sys.path)
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *points, result = done.stdout.splitlines()
    assert result == "It is on its way."
    assert [line for line in points if "tool-get_order after_effect" in line][:2] == [
        "1 tool-get_order after_effect"
    ] * 2
    assert {line.partition(" ")[0] for line in points} == {"1", "2", "3"}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
