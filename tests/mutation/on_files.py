"""Put mutants of the replay engine through the tests about its files and its workers, and the suite on SQLite.

That takes a quarter of a minute for one that survives. So it is for mutants that the suite on memory does not notice
(``python -m tests.mutation``), and for code that memory never enters, such as what commits to a file. What tests start
as processes of their own is not changed. A mutant counts as killed if the test that noticed it does so twice in a row.

Called as: python -m tests.mutation.on_files --only PATTERN [--sample N] [--seed N]
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.mutation.__main__ import FOLDER, SHARED, killer
from tests.mutation.rules import Change, changes_in, mutated_code

ROOT = Path(__file__).parents[2]

SECONDS = 300
"""Real seconds for all tests of a mutant."""

PATIENCE = 120
"""Real seconds for one test: a busy machine is no reason to call a mutant noticed."""

SUITE = "tests/testing/test_conformance_sqlite.py"
CRASHES = ("test_crash_watch", "test_crash_loops", "test_lone_bodies")
OWNERS = ("test_claims", "test_draining", "test_zombie", *CRASHES, "test_sqlite_shared")
STORED = ("test_group_commit", "test_disk_trouble")
FLOW = ("test_flow_crash", "test_flow_model")

FITTING: dict[str, tuple[Sequence[str], str]] = {
    "group_commit": (STORED, "c03 or c08 or c17"),
    "sqlite_file": (STORED, "c03 or c08 or c17"),
    "sqlite_journal": ((*STORED, *OWNERS), "c03 or c06 or c08 or c17 or c20 or c26"),
    "claims": (OWNERS, "c06 or c08 or c25 or c26 or c30_the_rules"),
    "crash_watch": (CRASHES, "c25"),
    "crashes": (CRASHES, "c25"),
    "lone_bodies": (CRASHES, "c25"),
    "driver": ((*OWNERS, "test_crash", "test_loop_goes_on", "test_user_code"), "c06 or c12 or c21"),
    "lease": (OWNERS, "c06 or c08"),
    "ownership": (OWNERS, "c06 or c08 or c25 or c26"),
    "journal_types": (OWNERS, "c06 or c25"),
    "journal": (("test_ended_runs", "test_disk_trouble", *FLOW), "c16 or c17 or c21 or c22 or c28"),
    "records": ((*STORED, *OWNERS), "c03 or c08 or c21 or c26 or c28"),
    "steps": ((*OWNERS, *STORED), "c05 or c08 or c10 or c18 or c19 or c20 or c25"),
    "scheduler": ((*OWNERS, "test_clock"), "c06 or c18 or c19 or c21"),
    "admission": (FLOW, "c22 or c30"),
    "slots": (FLOW, "c30"),
}
"""For a module of the engine, the files of ``tests/backends`` about it, and the clauses to look at on SQLite."""

REST = ((*OWNERS, *STORED), "c03 or c06 or c08 or c12 or c17 or c20 or c21")


class _First:
    """A plugin that notes the first test that fails."""

    def __init__(self) -> None:
        self.failed: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def first_failure(arguments: Sequence[Sequence[str]]) -> str | None:
    """Run tests, group by group; the first that fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-o", f"timeout={PATIENCE}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # the modules are loaded once for all mutants
    for group in arguments:
        first = _First()
        if pytest.main([*options, *group], plugins=[first]) not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            return first.failed or "the tests could not be run"
    return None


def noticed(change: Change) -> str | None:
    """The test that notices a change, or ``None``."""
    files, clauses = FITTING.get(change.path.stem, REST)
    groups = [[f"tests/backends/{file}.py" for file in files], [SUITE, "-k", clauses]]
    code = mutated_code(change)
    found = killer(change, code, partial(first_failure, groups), seconds=SECONDS)
    if found is None or "::" not in found:
        return found
    again = killer(change, code, partial(first_failure, [[found]]), seconds=SECONDS)
    return found if again is not None else f"{found}, once only: look at it by hand"


def main() -> int:
    """Try the mutants that fit; the exit status says whether one survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.on_files")
    parser.add_argument("--only", required=True, help="a pattern that fits a mutant's line, as it is printed")
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.chdir(ROOT)
    for file in {file for files, _ in (*FITTING.values(), REST) for file in files}:
        importlib.import_module(f"tests.backends.{file}")
    importlib.import_module("tests.testing.test_conformance_sqlite")
    made = [change for path in (*sorted(FOLDER.rglob("*.py")), *SHARED) for change in changes_in(path)]
    chosen = [change for change in made if re.search(asked.only, str(change))]
    random.Random(asked.seed).shuffle(chosen)
    survivors = 0
    for change in chosen[: asked.sample]:
        found = noticed(change)
        survivors += found is None
        print(f"SURVIVED  {change}" if found is None else f"killed    {change}  by {found}", flush=True)
    print(f"{len(chosen[: asked.sample])} tried, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
