"""Random operators: rules over one journal and several workers, held to the laws after each."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from durably.backends.memory import MemoryJournal
from durably.testing.fuzz.faults import FaultyJournal
from durably.testing.fuzz.machine_stores import MemoryStore, SQLiteStore
from durably.testing.fuzz.state_machine import DurableStateMachine
from durably.testing.mutants import MUTANTS, Mutant

EXAMPLES = int(os.environ.get("DURABLY_EXAMPLES", "300"))


pytestmark = pytest.mark.usefixtures("quiet")


class TestStateMachine(DurableStateMachine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(
        max_examples=max(50, EXAMPLES // 4),
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        print_blob=True,
    )


class SQLiteStateMachine(DurableStateMachine):
    """Workers that are crashed in this process, on one file."""

    def store(self) -> SQLiteStore:
        return SQLiteStore()


class TestStateMachineOnSQLite(SQLiteStateMachine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(
        TestStateMachine.settings,
        max_examples=200 if os.environ.get("DURABLY_LONG") else 10,
        stateful_step_count=25,
        derandomize=True,
        database=None,
        print_blob=False,
    )


NOTICED = {
    "no-fencing",
    "prefix-rewritten",
    "recovery-drops-the-last-record",
    "ended-runs-can-be-cancelled",
}


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.name in NOTICED], ids=lambda each: each.name)
def test_the_state_machine_notices(mutant: Mutant) -> None:
    journal = FaultyJournal if mutant.journal is MemoryJournal else type("Both", (FaultyJournal, mutant.journal), {})
    broken = type("Broken", (DurableStateMachine,), {"store": lambda _: MemoryStore(mutant.backend, journal)})
    options = settings(
        TestStateMachine.settings,
        max_examples=400,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        print_blob=False,
    )
    with pytest.raises(AssertionError, match=r"L\d|C21"):
        run_state_machine_as_test(broken, settings=options)
