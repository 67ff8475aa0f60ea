"""A tool that kills its real process every time: its agent ends all the same, and so do the runs beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).parent / "crash_loop_child.py"

WAYS = {"exit": 7, "segfault": -signal.SIGSEGV, "kill": -signal.SIGKILL}


def live(directory: Path, way: str) -> tuple[int, Any]:
    """One life of the process: its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, CHILD, directory / "runs.db", directory / "ledger", way],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_ends_whose_tool_kills_the_process_every_time(way: str, tmp_path: Path) -> None:
    for _ in range(3):
        code, said = live(tmp_path, way)
        assert code == WAYS[way], said
    code, said = live(tmp_path, way)
    assert code == 0, said
    assert said["text"] == "It cannot be done."
    assert "died 3 times" in said["told"][0]
    assert said["others"] == [[f"neighbour-{number}-{step}" for step in range(3)] for number in range(5)]
    assert said["patient"] in ("running", "waiting")
    ran = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [attempt for name, attempt in ran if name == "crunch"] == [1, 2, 3]
    assert max(Counter(map(tuple, ran)).values()) == 1, "no execution has the number of another"
