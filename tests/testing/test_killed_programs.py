"""Random programs on SQLite, in processes that are killed with SIGKILL."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.core.steps import PointName
from durably.testing.crash.faults import Crash
from durably.testing.fuzz.killed_runs import run_under_kills
from durably.testing.fuzz.programs import Block, Step, nodes
from durably.testing.fuzz.strategies import forks, programs

EXAMPLES = 200 if os.environ.get("DURABLY_LONG") else 10

killed: list[int] = []

POINTS: list[PointName] = ["before_start", "before_body", "after_effect", "after_commit", "replay", "after_commit"]

crashes = st.lists(st.builds(Crash, st.just("*"), st.sampled_from(POINTS), st.integers(0, 3)), min_size=1, max_size=3)


@pytest.mark.timeout(20 * EXAMPLES)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(programs().filter(lambda block: sum(isinstance(node, Step) for node in nodes(block)) >= 3), crashes, forks())
def test_no_law_is_broken(program: Block, plan: list[Crash], fork: int | None) -> None:
    with TemporaryDirectory() as folder:
        killed.append(run_under_kills(program, plan, Path(folder), fork=fork))


def test_the_kills_were_not_in_vain() -> None:
    if not killed:
        pytest.skip("runs after the programs, in the same process")
    assert sum(killed) >= len(killed) / 2
