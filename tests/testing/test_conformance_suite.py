"""The suite itself: its report, its declared gaps, and that it covers the contract."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from durably.backends import MemoryBackend
from durably.backends.replay.claims import Claims
from durably.testing import conformance
from durably.testing.conformance import CLAUSES, TESTS, MemorySubject, check, load_gaps, save_gaps
from durably.testing.conformance.suite import clause
from durably.testing.mutants import MUTANTS, Mutant
from durably.testing.mutants.mutant import with_part

ROOT = Path(__file__).parent.parent.parent

LOSSY = next(mutant for mutant in MUTANTS if mutant.name == "types-are-lost")


def test_every_clause_has_a_test() -> None:
    assert {name[5:8].upper() for name in TESTS} == set(CLAUSES)
    contract = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    assert list(CLAUSES) == sorted(re.findall(r"^- \*\*(C\d\d)\*\*", contract, re.MULTILINE))
    assert all(callable(getattr(conformance, name)) and name in conformance.__all__ for name in TESTS)


def test_the_report_shows_each_clause_and_each_failure() -> None:
    report = check(LOSSY.subject, tests="_c04_", name="lossy")
    assert not report.ok
    assert {outcome.clause for outcome in report.outcomes} == {"C04"}
    text = str(report)
    assert text.startswith(f"lossy: {len(report.outcomes)} tests of {len(CLAUSES)} clauses\n")
    assert "C05  not tested" in text
    assert "failed: test_c04_" in text
    assert check(MemorySubject, tests="_c04_").ok


def test_gaps_go_out_to_a_file_and_come_in_again(tmp_path: Path) -> None:
    report = check(LOSSY.subject, tests="_c04_")
    assert report.gaps()
    save_gaps({name: f'known: "{reason}"\n' for name, reason in report.gaps().items()}, tmp_path / "gaps.toml")
    gaps = load_gaps(tmp_path / "gaps.toml")
    assert gaps.keys() == report.gaps().keys()

    def declared() -> MemorySubject:
        subject = LOSSY.subject()
        subject.gaps = gaps
        return subject

    again = check(declared, tests="_c04_")
    assert again.ok
    assert again.gaps() == gaps
    name = next(iter(gaps))
    with pytest.raises(pytest.xfail.Exception, match="known"):
        getattr(conformance, name)(declared())


def test_a_gap_that_passes_is_an_error() -> None:
    name = next(name for name in TESTS if "_c01_" in name)
    subject = MemorySubject()
    subject.gaps = {name: "was true once"}
    with pytest.raises(AssertionError, match="take it out of the declared gaps"):
        getattr(conformance, name)(subject)


def test_a_gap_that_names_no_test_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gaps.toml").write_text('test_c99_nothing = "why"\n')
    with pytest.raises(ValueError, match="test_c99_nothing"):
        load_gaps(tmp_path / "gaps.toml")


def test_a_test_that_hangs_fails() -> None:
    class TakesNothing(Claims):
        def claim_runs(self, otherwise: object = None) -> None:
            pass

    class Stuck(MemoryBackend):
        parts = with_part(TakesNothing)

    stuck = Mutant(name="stuck", clause="C06", bug="", backend=Stuck)
    subject = stuck.subject()
    subject.patience = 0.2
    with pytest.raises(AssertionError, match="something waits for ever"):
        conformance.test_c06_a_run_goes_on_by_itself(subject)  # type: ignore[attr-defined]


def test_a_test_with_a_wrong_name_is_refused() -> None:
    async def test_c99_more(subject: conformance.Subject) -> None:
        return

    with pytest.raises(ValueError, match="test_c99_more"):
        clause(test_c99_more)


def test_the_library_needs_neither_pytest_nor_hypothesis() -> None:
    code = "import sys, durably.testing; print('pytest' in sys.modules, 'hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
