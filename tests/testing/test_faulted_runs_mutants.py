"""The random programs notice broken engines, so they are not in vain."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st

from durably.backends.memory import MemoryJournal
from durably.core.errors import Signal
from durably.testing.fuzz.faulted_runs import run_under_faults
from durably.testing.fuzz.faults import Fault, FaultyJournal, OutsideEvent
from durably.testing.fuzz.machine_stores import MemoryStore
from durably.testing.fuzz.programs import (
    AgentTools,
    AwaitTick,
    Block,
    Contend,
    Gather,
    Heals,
    Invoke,
    Step,
    ToolKind,
    ToolUse,
    Try,
)
from durably.testing.fuzz.strategies import faults, outside_events, programs
from durably.testing.laws import BrokenLawError
from durably.testing.mutants import MUTANTS, Mutant

NOTICED = {
    "acknowledge-before-commit",
    "bodies-run-twice",
    "child-id-per-attempt",
    "event-twice",
    "functions-are-not-retried",
    "idempotency-key-per-attempt",
    "no-fencing",
    "one-attempt-too-many",
    "prefix-rewritten",
    "random-event-ids",
}
"""Some that a few hundred programs meet; the rest is left to the conformance suite, which looks for them."""


pytestmark = pytest.mark.usefixtures("quiet")


def _store(mutant: Mutant) -> MemoryStore:
    plain = mutant.journal is MemoryJournal
    return MemoryStore(mutant.backend, FaultyJournal if plain else type("Both", (FaultyJournal, mutant.journal), {}))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.name in NOTICED], ids=lambda each: each.name)
def test_random_programs_break_a_law_of(mutant: Mutant) -> None:
    def breaks(case: tuple[Block, list[Fault], list[OutsideEvent], int]) -> bool:
        program, plan, events, seed = case
        run = run_under_faults(program, plan, events, seed=seed, store=_store(mutant))
        try:
            asyncio.run(asyncio.wait_for(run, 2))
        except BrokenLawError:
            return True
        except (Exception, Signal):
            return False  # it broke in another way; a law is what is looked for
        return False

    cases = st.tuples(programs(leaves=6), faults(), outside_events(), st.integers(0, 3))
    options = settings(
        max_examples=400,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    find(cases, breaks, settings=options)  # raises NoSuchExample otherwise


def _agent(kind: ToolKind) -> AgentTools:
    return AgentTools(((ToolUse(kind, 1),),))


MET: dict[str, tuple[Block, list[Fault], int | None]] = {
    "branches-share-their-numbers": ((Gather(((Step("a", 1), Step("a", 2)), (Step("a", 3),))),), [], None),
    "cron-comes-twice": ((AwaitTick("once"),), [Fault("crash", 1)], None),
    "edited-arguments-forgotten": ((_agent("changed"),), [], None),
    "forks-keep-failures-taken-up": ((Heals(1),), [], 0),
    "forks-start-over": ((Step("a", 1), Step("b", 2)), [], 0),
    "forks-take-everything": ((Step("a", 1), Step("b", 2)), [], 0),
    "queue-lets-all-begin": ((Contend("queue", (0, 0)),), [], None),
    "retry-keeps-the-failure": ((Heals(1),), [], None),
    "retry-leaves-the-children": ((Invoke((Heals(1),)),), [], None),
    "retry-starts-over": ((Step("a", 1), Heals(1)), [], None),
    "retry-takes-up-every-failure": ((Try((Heals(1),)), Heals(2)), [], None),
    "singleton-ignored-for-events": ((Contend("skip", (0, 0)),), [], None),
    "skip-cancels": ((Contend("skip", (0, 0)),), [], None),
}
"""Programs with what a few hundred random ones do not all meet, their faults, and the step that they are forked at."""


@pytest.mark.parametrize("name", MET)
def test_a_program_breaks_a_law_of(name: str) -> None:
    (mutant,) = (each for each in MUTANTS if each.name == name)
    program, plan, fork = MET[name]
    asyncio.run(run_under_faults(program, plan, fork=fork))
    broken = run_under_faults(program, plan, fork=fork, store=_store(mutant))
    with pytest.raises(BrokenLawError):
        asyncio.run(asyncio.wait_for(broken, 20))


def test_the_names_are_those_of_mutants() -> None:
    assert {mutant.name for mutant in MUTANTS} >= NOTICED
