"""The state machine for engines that go on by themselves, on the one in memory: it notices broken engines."""

from __future__ import annotations

import os

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from durably.testing.conformance import MemorySubject
from durably.testing.fuzz.subject_machine import SubjectStateMachine
from durably.testing.mutants import MUTANTS, Mutant
from tests.random_programs import FEW

OPTIONS = settings(FEW, max_examples=25, stateful_step_count=12)


pytestmark = pytest.mark.usefixtures("quiet")


class InMemory(SubjectStateMachine):
    breath = 0.01

    def make_subject(self) -> MemorySubject:
        return MemorySubject()


def test_no_law_is_broken() -> None:
    run_state_machine_as_test(InMemory, settings=OPTIONS)


NOTICED = {"ended-runs-can-be-cancelled", "event-twice", "prefix-rewritten"}
if os.environ.get("DURABLY_LONG"):
    NOTICED |= {"no-fencing", "recovery-drops-the-last-record"}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.name in NOTICED], ids=lambda each: each.name)
def test_the_state_machine_notices(mutant: Mutant) -> None:
    broken = type("Broken", (InMemory,), {"make_subject": lambda _: mutant.subject()})
    options = settings(OPTIONS, max_examples=300, phases=[Phase.generate])
    with pytest.raises(AssertionError, match=r"L\d|C21"):
        run_state_machine_as_test(broken, settings=options)
