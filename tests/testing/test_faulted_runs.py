"""Random programs under random faults, held to the laws by an oracle that knows only the program."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.testing.fuzz.faulted_runs import run_under_faults
from durably.testing.fuzz.faults import Fault, OutsideEvent
from durably.testing.fuzz.programs import Block, Node, nodes
from durably.testing.fuzz.runner import FaultedRun
from durably.testing.fuzz.strategies import faults, forks, outside_events, programs

EXAMPLES = int(os.environ.get("DURABLY_EXAMPLES", "400"))
LIMIT = max(60, 3 * EXAMPLES)

seen: Counter[str] = Counter()


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.timeout(LIMIT)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="DURABLY_EXAMPLES" not in os.environ,  # what a change is held to is the same each time
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)
@given(
    programs(), faults(), outside_events(), forks(), st.integers(0, 3), st.sampled_from(["never", "never", "always"])
)
def test_no_law_is_broken(
    program: Block, plan: list[Fault], events: list[OutsideEvent], fork: int | None, seed: int, evict: str
) -> None:
    run: FaultedRun = asyncio.run(run_under_faults(program, plan, events, fork=fork, seed=seed, evict=evict))  # type: ignore[arg-type]
    seen.update(run.struck)
    seen.update({type(node).__name__ for node in nodes(program)})
    seen["retried"] += run.operator.expected.retried
    seen["forked"] += fork is not None
    seen["programs"] += 1
    seen["lives"] += run.lives
    seen["bodies"] += len(run.ledger.of("started"))
    seen["points"] += run.passed


def test_the_faults_were_not_in_vain(record_property: Callable[[str, object], None]) -> None:
    if not seen["programs"]:
        pytest.skip("runs after the programs, in the same process")
    for kind in ("crash", "steal", "refuse", "forward", "back", "again", "stop"):
        assert seen[kind], f"no {kind} has happened in {seen['programs']} programs"
    for node in get_args(Node):
        assert seen[node.__name__], f"no {node.__name__} was in {seen['programs']} programs"
    assert seen["retried"]
    assert seen["forked"]
    for name, count in seen.items():
        record_property(name, count)
    print(dict(seen))
