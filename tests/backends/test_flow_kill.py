"""Runs that stand in line, wait for quiet and come by the clock, over a real SIGKILL and a fresh process."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.backends import killed_process

CHILD = Path(__file__).parent / "flow_kill_child.py"

POINTS = [
    ("before_first", "line", "", 1),
    ("before_body", "line", "begin", 1),
    ("after_effect", "line", "begin", 2),
    ("after_commit", "line", "nap", 1),
    ("before_result", "line", "", 1),
    ("after_result", "line", "", 1),
    ("before_first", "line", "", 2),
    ("after_result", "line", "", 3),
    ("before_first", "quiet", "", 1),
    ("after_effect", "quiet", "say", 1),
    ("after_result", "quiet", "", 1),
    ("before_first", "ticking", "", 1),
    ("after_effect", "ticking", "say", 2),
    ("after_result", "ticking", "", 1),
]


def live(directory: Path, seconds: float, *kill: object) -> tuple[int, Any]:
    """One life of the process, whose clock begins so many seconds later: its exit code and what it printed."""
    return killed_process.live(CHILD, directory, str(seconds), *map(str, kill))


def effects(directory: Path) -> list[tuple[str, str]]:
    return [tuple(json.loads(line)) for line in (directory / "ledger").read_text().splitlines()]


def check(directory: Path, runs: Any) -> None:
    """Every run has ended, each effect came in its place, and none under two keys."""
    assert Counter((function, status) for function, status in runs) == {
        ("line", "completed"): 3,
        ("quiet", "completed"): 1,
        ("quiet", "skipped"): 2,
        ("ticking", "completed"): 3,
        ("until", "completed"): 1,
    }
    found = effects(directory)
    names = list(dict.fromkeys(name for name, _ in found))
    assert [name for name in names if name.startswith(("begin", "end"))] == [
        f"{what} {n}" for n in range(3) for what in ("begin", "end")
    ]
    assert [name for name in names if name.startswith("quiet")] == ["quiet 2"]
    # Those that were missed are made up for side by side.
    assert {name for name in names if name.startswith("tick")} == {"tick 60", "tick 120", "tick 180"}
    assert len(set(found)) == len(names), "one effect, two idempotency keys: two runs of one event or time"


def test_without_a_kill(tmp_path: Path) -> None:
    code, runs = live(tmp_path, 0)
    assert code == 0
    check(tmp_path, runs)
    assert len(effects(tmp_path)) == 10


@pytest.mark.parametrize(("point", "function", "key", "occurrence"), POINTS)
def test_killed_at(point: str, function: str, key: str, occurrence: int, tmp_path: Path) -> None:
    code, _ = live(tmp_path, 0, point, function, key, occurrence)
    assert code == -signal.SIGKILL, "the point was never reached"
    code, runs = live(tmp_path, 130)  # it comes back later: two times of the cron may have been missed
    assert code == 0
    check(tmp_path, runs)
    assert len(effects(tmp_path)) <= 11, "only what the kill cut off runs again"
