"""A real process, a real SIGKILL at each kind of point, a fresh process that goes on."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.backends.killed_process import live

CHILD = Path(__file__).parent / "kill_child.py"

POINTS = [
    ("before_first", "main"),
    ("before_start", "flaky"),
    ("before_body", "flaky"),
    ("backing_off", "flaky"),
    ("after_commit", "flaky"),
    ("child_started", "cashier"),
    ("before_first", "cashier"),
    ("before_body", "think"),
    ("after_effect", "think"),
    ("after_commit", "think"),
    ("in_body", "tool-charge"),
    ("after_effect", "tool-charge"),
    ("after_commit", "tool-charge"),
    ("in_body", "gather[0]/tool-charge"),
    ("after_effect", "gather[1]/tool-charge"),
    ("after_commit", "gather[0]/tool-charge"),
    ("before_result", "cashier"),
    ("after_result", "cashier"),
    ("child_done", "cashier"),
    ("after_send", "tell"),
    ("after_effect", "note"),
    ("registered", "rest"),
    ("before_result", "main"),
    ("after_result", "main"),
]


def effects(directory: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (directory / "ledger").read_text().splitlines()]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Counter[str]]:
    """The run that nothing disturbs, and its effects."""
    directory = tmp_path_factory.mktemp("calm")
    code, seen = live(CHILD, directory)
    assert code == 0
    return seen, Counter(name for name, *_ in effects(directory))


@pytest.mark.parametrize(("point", "step"), POINTS, ids=lambda text: text)
def test_killed_at(point: str, step: str, calm: tuple[Any, Counter[str]], tmp_path: Path) -> None:
    calm_seen, calm_effects = calm
    code, _ = live(CHILD, tmp_path, point, step)
    assert code == -signal.SIGKILL, "the point was never reached"
    code, seen = live(CHILD, tmp_path)
    assert code == 0
    assert seen["result"] == calm_seen["result"]
    assert seen["histories"].keys() == calm_seen["histories"].keys()  # the same children and listeners, once each
    again = Counter(name for name, *_ in effects(tmp_path)) - calm_effects
    assert sum(again.values()) <= (2 if "gather" in step else 1)  # only what was running may have run again
    keys = {
        (name, key): {idempotency_key for n, k, _, idempotency_key in effects(tmp_path) if (n, k) == (name, key)}
        for name, key, *_ in effects(tmp_path)
    }
    assert all(len(each) == 1 for each in keys.values())
    attempts = Counter((name, key, attempt) for name, key, attempt, _ in effects(tmp_path))
    assert set(attempts.values()) == {1}, "two executions of a step saw the same attempt number"
    if point in ("after_commit", "before_start", "before_first", "before_result", "after_result", "child_done"):
        # In a gather the bodies of the other branches may have been running.
        ran_again = {key for _, key, attempt in attempts if attempt > 1}
        assert step not in ran_again if "gather" in step else not again, "a committed step ran again"


def test_killed_again_while_it_replays(calm: tuple[Any, Counter[str]], tmp_path: Path) -> None:
    for point, step in [("after_commit", "tool-charge"), ("replay", "load-context"), ("replay", "flaky")]:
        assert live(CHILD, tmp_path, point, step)[0] == -signal.SIGKILL
    _, seen = live(CHILD, tmp_path)
    assert seen["result"] == calm[0]["result"]
    assert Counter(name for name, *_ in effects(tmp_path)) == calm[1]
