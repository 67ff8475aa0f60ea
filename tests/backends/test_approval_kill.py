"""A process is killed wherever an approval is: the tool runs once with what the person wrote."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.backends.killed_process import live

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


@pytest.mark.parametrize("point", POINTS, ids="/".join)
def test_a_killed_process_pays_once_what_a_person_wrote(tmp_path: Path, point: tuple[str, str]) -> None:
    assert live(CHILD, tmp_path, *point)[0] == -signal.SIGKILL
    code, told = live(CHILD, tmp_path)
    assert (code, told) == (
        0,
        ["paid 1", 'A person changed the arguments: pay was run with {"amount": 10}\npaid 10'],
    )
    effects = {tuple(json.loads(line)) for line in (tmp_path / "ledger").read_text().splitlines()}
    assert sorted(amount for _, amount in effects) == [1, 10]
