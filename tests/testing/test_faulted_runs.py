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
from durably.testing.fuzz.faults import Fault, FaultKind, OutsideEvent
from durably.testing.fuzz.machine_stores import Evict, MachineStore, MemoryStore, SQLiteStore
from durably.testing.fuzz.programs import AskAndWait, Block, Gather, Invoke, Node, Send, Sleep, Step, nodes
from durably.testing.fuzz.runner import FaultedRun
from durably.testing.fuzz.strategies import faults, forks, outside_events, programs
from tests.random_programs import FEW

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
    program: Block, plan: list[Fault], events: list[OutsideEvent], fork: int | None, seed: int, evict: Evict
) -> None:
    run = asyncio.run(run_under_faults(program, plan, events, fork=fork, seed=seed, evict=evict))
    seen.update(run.struck)
    seen.update({type(node).__name__ for node in nodes(program)})
    seen["retried"] += run.operator.expected.retried
    seen["forked"] += fork is not None
    seen["programs"] += 1
    seen["lives"] += run.lives
    seen["bodies"] += len(run.ledger.of("started"))
    seen["points"] += run.passed


seen_on_file: Counter[str] = Counter()


@pytest.mark.timeout(LIMIT)
@settings(FEW, max_examples=max(20, EXAMPLES // 10))
@given(programs(leaves=6), faults(), outside_events(), forks(), st.sampled_from(["never", "never", "always"]))
def test_no_law_is_broken_on_a_file(
    program: Block, plan: list[Fault], events: list[OutsideEvent], fork: int | None, evict: Evict
) -> None:
    run = asyncio.run(_on_a_file(program, plan, events, fork=fork, evict=evict))
    seen_on_file.update(run.struck)


def test_the_faults_on_a_file_were_not_in_vain() -> None:
    if not seen_on_file:
        pytest.skip("runs after the programs, in the same process")
    for kind in ("crash", "steal", "refuse", "again", "stop"):
        assert seen_on_file[kind], f"no {kind} has happened on a file"


EVERYTHING: Block = (
    Step("a", 1, fails=1),
    Gather(((Step("b", 2), Send(1)), (Invoke((Step("a", 3),)),))),
    Sleep(7.0),
    AskAndWait(1),
)


@pytest.mark.parametrize("kind", ["refuse", "steal"])
@pytest.mark.parametrize("store", [MemoryStore, SQLiteStore])
def test_every_commit_may_be_refused_and_every_lease_stolen(store: Callable[[], MachineStore], kind: FaultKind) -> None:
    """At each point in turn, and so between each body and its commit, too."""
    passed = 0
    while True:
        run = asyncio.run(_under([Fault(kind, passed)], store()))
        if not run.struck[kind]:
            break
        passed += 1
    assert passed > 25


async def _under(plan: list[Fault], store: MachineStore) -> FaultedRun:
    try:
        return await run_under_faults(EVERYTHING, plan, store=store)
    finally:
        store.close()


async def _on_a_file(
    program: Block, plan: list[Fault], events: list[OutsideEvent], *, fork: int | None, evict: Evict
) -> FaultedRun:
    store = SQLiteStore()
    try:
        return await run_under_faults(program, plan, events, fork=fork, evict=evict, store=store)
    finally:
        store.close()


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
