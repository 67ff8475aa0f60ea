"""Random programs on Temporal, with workers that crash: with what they keep of runs, and evicted after each task."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends.temporal import TemporalBackend
from durably.testing.fuzz.crashed_runs import CrashedRun
from durably.testing.fuzz.programs import AwaitTick, Block, Gather, Step
from durably.testing.fuzz.strategies import forks, programs
from tests.random_programs import FEW
from tests.temporal.subject import TemporalSubject

EXAMPLES = 100 if os.environ.get("DURABLY_LONG") else 4

CAPABILITIES = TemporalBackend.capabilities

PACE = 0.0005
"""Seconds that one second of a program takes: an hour takes two."""

CACHES: dict[str, dict[str, Any]] = {"cached": {}, "evicted": {"max_cached_workflows": 0}}

crashed: list[int] = []


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.timeout(60 * EXAMPLES)
@pytest.mark.parametrize("cache", CACHES)
@settings(FEW, max_examples=EXAMPLES)
@given(
    programs(leaves=5, capabilities=CAPABILITIES),
    st.lists(st.integers(0, 12), max_size=1),
    forks(capabilities=CAPABILITIES),
)
def test_no_law_is_broken(
    temporal_address: str, cache: str, program: Block, crashes: list[int], fork: int | None
) -> None:
    run = CrashedRun(TemporalSubject(temporal_address, **CACHES[cache]), program, crashes, fork=fork, pace=PACE)
    asyncio.run(asyncio.wait_for(run.run(), 50))
    crashed.append(run.crashed)


CRONS: list[Block] = [
    (AwaitTick("once"), Step("a", 1)),
    (Gather(((AwaitTick("each"),), (Step("a", 1, fails=1),))), AwaitTick("each")),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("program", CRONS)
def test_what_a_cron_starts_is_waited_for_over_a_crash(temporal_address: str, program: Block) -> None:
    run = CrashedRun(TemporalSubject(temporal_address), program, [3, 5], pace=PACE)
    asyncio.run(asyncio.wait_for(run.run(), 100))
    assert run.crashed


def test_the_crashes_were_not_in_vain() -> None:
    if not crashed:
        pytest.skip("runs after the programs, in the same process")
    assert sum(crashed)
