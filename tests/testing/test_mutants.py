from __future__ import annotations

import pytest

from durably.testing.conformance import CLAUSES, Outcome
from durably.testing.mutants import MUTANTS, Mutant, killers


@pytest.fixture(scope="module")
def kills(request: pytest.FixtureRequest) -> dict[str, Outcome | None]:
    """The first test that notices each mutant; printed as a table."""
    found = {mutant.name: next(killers(mutant), None) for mutant in MUTANTS}
    killed = sum(1 for outcome in found.values() if outcome is not None)
    lines = [f"{killed} of {len(found)} mutants killed ({100 * killed / len(found):.0f} %)"]
    for mutant in sorted(MUTANTS, key=lambda mutant: mutant.clause):
        outcome = found[mutant.name]
        lines.append(f"  {mutant.clause}  {mutant.name:<36} {outcome.test if outcome else 'SURVIVED'}")
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    if capture is not None:
        with capture.global_and_fixture_disabled():
            print("", *lines, sep="\n")
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.clause}-{mutant.name}")
def test_every_mutant_is_killed_by_its_clause(mutant: Mutant, kills: dict[str, Outcome | None]) -> None:
    outcome = kills[mutant.name]
    assert outcome is not None, f"no test of {mutant.clause} notices this: {mutant.bug}"
    assert outcome.clause == mutant.clause


def test_every_clause_has_a_mutant() -> None:
    assert {mutant.clause for mutant in MUTANTS} == set(CLAUSES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
