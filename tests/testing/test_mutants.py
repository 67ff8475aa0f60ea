from __future__ import annotations

import pytest

from durably.testing.conformance import CLAUSES
from durably.testing.mutants import MUTANTS, Mutant, killers


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.clause}-{mutant.name}")
def test_every_mutant_is_killed_by_its_clause(mutant: Mutant) -> None:
    outcome = next(killers(mutant), None)
    assert outcome is not None, f"no test of {mutant.clause} notices this: {mutant.bug}"
    assert outcome.clause == mutant.clause


def test_every_clause_has_a_mutant() -> None:
    assert {mutant.clause for mutant in MUTANTS} == set(CLAUSES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
