"""A process is killed wherever an approval is: the tool runs once with what the person wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).parent / "approval_child.py"

POINTS = [
    ("after_commit", "request-pay:1"),
    ("registered", "gather[0]/approve-pay"),
    ("after_send", "gather[1]/ask-pay"),
    ("after_commit", "gather[0]/approve-pay"),
    ("before_body", "tool-pay:1"),
    ("after_effect", "tool-pay:1"),
    ("after_commit", "tool-pay:1"),
]


def live(directory: Path, *kill: str) -> tuple[int, Any]:
    """One life of the process: its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, CHILD, directory / "runs.db", directory / "ledger", *kill],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize("point", POINTS, ids="/".join)
def test_a_killed_process_pays_once_what_a_person_wrote(tmp_path: Path, point: tuple[str, str]) -> None:
    assert live(tmp_path, *point)[0] == -signal.SIGKILL
    code, told = live(tmp_path)
    assert (code, told) == (
        0,
        ["paid 1", 'A person changed the arguments: pay was run with {"amount": 10}\npaid 10'],
    )
    effects = {tuple(json.loads(line)) for line in (tmp_path / "ledger").read_text().splitlines()}
    assert sorted(amount for _, amount in effects) == [1, 10]
