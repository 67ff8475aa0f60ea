"""Random programs on the harness of Inngest, with apps that crash, as they are and with each request replayed."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends.inngest import InngestBackend
from durably.testing.fuzz.crashed_runs import CrashedRun
from durably.testing.fuzz.programs import Block
from durably.testing.fuzz.strategies import forks, programs
from tests.inngest.subject import EngineSubject
from tests.random_programs import FEW

EXAMPLES = 200 if os.environ.get("DURABLY_LONG") else 8

CAPABILITIES = InngestBackend.capabilities

crashed: list[int] = []


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.timeout(30 * EXAMPLES)
@pytest.mark.parametrize("hold", [60.0, 0.0], ids=["engine", "replaying"])
@settings(FEW, max_examples=EXAMPLES)
@given(
    programs(leaves=6, capabilities=CAPABILITIES, crons=("once",)),
    st.lists(st.integers(0, 15), max_size=2),
    forks(capabilities=CAPABILITIES),
)
def test_no_law_is_broken(hold: float, program: Block, crashes: list[int], fork: int | None) -> None:
    run = CrashedRun(EngineSubject(hold=hold), program, crashes, fork=fork)
    asyncio.run(asyncio.wait_for(run.run(), 25))
    crashed.append(run.crashed)


def test_the_crashes_were_not_in_vain() -> None:
    if not crashed:
        pytest.skip("runs after the programs, in the same process")
    assert sum(crashed) >= len(crashed) / 4
