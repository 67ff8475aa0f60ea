"""The contract word by word: the table of what tests and breaks each statement is whole and true."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from durably.testing.conformance import CLAUSES, TESTS
from durably.testing.mutants import MUTANTS
from tests.testing.contract_table import ROOT, Row, rows

ROWS = rows()


@pytest.mark.parametrize("clause", CLAUSES)
def test_the_statements_of_a_clause_are_its_text(clause: str) -> None:
    contract = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    found = re.search(rf"^- \*\*{clause}\*\* (.*?)(?=^- \*\*|^## |\Z)", contract, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert " ".join(row.statement for row in ROWS if row.clause == clause) == " ".join(found[1].split())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.clause} {row.statement[:50]}")
def test_each_statement_has_tests_and_broken_engines(row: Row) -> None:
    assert row.patterns, "each statement is tested"
    for pattern in (*row.patterns, *row.elsewhere):
        path, _, name = pattern.partition("::")
        if "/" in pattern:
            assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8"), f"there is no {pattern}"
        else:
            assert row.matching(pattern), f"no test of {row.clause} is called {pattern}"
    assert row.mutants or row.elsewhere, "each statement has something broken that its tests notice"


def test_every_test_stands_beside_a_statement() -> None:
    assert {name for row in ROWS for name in row.tests} == set(TESTS)


def test_every_mutant_stands_beside_one_statement_of_its_clause() -> None:
    named = Counter((row.clause, name) for row in ROWS for name in row.mutants)
    assert named == Counter((mutant.clause, mutant.name) for mutant in MUTANTS)
