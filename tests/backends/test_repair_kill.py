"""Repairs under a real SIGKILL: a retry after a bad deploy, a fork, and a patch with runs on both sides of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).parent / "repair_child.py"

POINTS = [
    ("before_first", "order"),
    ("before_body", "ship"),
    ("after_effect", "ship"),
    ("after_commit", "ship"),
    ("before_result", "order"),
    ("after_result", "order"),
]


def live(directory: Path, code: str, what: str, *kill: str) -> Any:
    """One life of the process: what it printed, or ``None`` if it killed itself."""
    command: list[str | Path] = [sys.executable, CHILD, directory / "runs.db", directory / "ledger", code, what, *kill]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
    return json.loads(done.stdout) if done.stdout else None


def effects(directory: Path, run: str) -> Counter[str]:
    """How often each effect of a run happened; no two executions of a step had the same number."""
    lines = [json.loads(line) for line in (directory / "ledger").read_text().splitlines()]
    executions = Counter((run_id, key, attempt) for _, run_id, key, attempt, _ in lines)
    assert set(executions.values()) == {1}
    assert len({(run_id, key) for _, run_id, key, *_ in lines}) == len({each for *_, each in lines})
    return Counter(name for name, run_id, *_ in lines if run_id == run)


@pytest.mark.parametrize(("point", "step"), POINTS, ids=lambda text: text)
def test_a_retry_after_a_bad_deploy_is_killed(point: str, step: str, tmp_path: Path) -> None:
    assert live(tmp_path, "bad", "start")[0] == "ValueError"
    assert live(tmp_path, "good", "retry", point, step) is None
    assert live(tmp_path, "good", "retry") == [["reserve", "pay", "ship"], ["reserve", "pay", "ship"]]
    counts = effects(tmp_path, "the-run")
    assert counts["ship"] <= 1 + (point == "after_effect")
    assert counts - Counter(ship=2) == Counter(reserve=1, pay=1), "what was committed is not run again"


@pytest.mark.parametrize(("point", "step"), POINTS, ids=lambda text: text)
def test_a_fork_is_killed(point: str, step: str, tmp_path: Path) -> None:
    live(tmp_path, "good", "start")
    assert live(tmp_path, "good", "fork", point, step) is None
    assert live(tmp_path, "good", "fork") == [["reserve", "pay", "ship"], ["reserve", "pay", "ship"]]
    assert effects(tmp_path, "the-run") == Counter(reserve=1, pay=1, ship=1)
    counts = effects(tmp_path, "the-fork")
    assert counts - Counter(ship=2) == Counter(pay=1), "the beginning is not run again"


@pytest.mark.parametrize("point", ["before_body", "after_effect", "after_commit"])
def test_runs_on_both_sides_of_a_patch_are_killed(point: str, tmp_path: Path) -> None:
    live(tmp_path, "good", "start", "after_commit", "pay")
    assert live(tmp_path, "patched", "go on", point, "ship") is None
    assert live(tmp_path, "patched", "go on")[1] == ["reserve", "pay", "ship"], "it was past the place"
    assert live(tmp_path, "patched", "new", point, "pay-anew") is None
    assert live(tmp_path, "patched", "new")[1] == ["reserve", "pay-anew", "ship"]
    assert effects(tmp_path, "the-run") - Counter(ship=2) == Counter(reserve=1, pay=1)
    assert "pay" not in effects(tmp_path, "the-new-run")
