from __future__ import annotations

import pytest

from durably.testing.conformance import CLAUSES
from durably.testing.mutants import MUTANTS, Mutant, killers
from tests.testing.contract_table import rows

TESTS = {name: row.tests for row in rows() for name in row.mutants}
"""The tests of the statement that each mutant breaks."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.clause}-{mutant.name}")
def test_every_mutant_is_killed_by_a_test_of_its_statement(mutant: Mutant) -> None:
    outcome = next((found for test in TESTS[mutant.name] for found in killers(mutant, tests=test)), None)
    assert outcome is not None, f"no test of its statement notices this: {mutant.bug}"
    assert outcome.clause == mutant.clause


def test_every_clause_has_a_mutant() -> None:
    assert {mutant.clause for mutant in MUTANTS} == set(CLAUSES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
