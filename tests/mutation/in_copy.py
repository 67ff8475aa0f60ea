"""Put mutants of the replay engine through the tests of its files, its processes and its crashes, too.

Each mutant is written into a copy of the sources, and pytest runs there: with SQLite, and with the processes that tests
start. That takes half a minute for a mutant that survives, so it is for those that the conformance suite on memory does
not notice (``python -m tests.mutation``), and for code that memory never enters.

Called as: python -m tests.mutation.in_copy --only PATTERN [--sample N] [--seed N]
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.__main__ import FOLDER, SHARED
from tests.mutation.rules import Change, changed_source, changes_in

ROOT = Path(__file__).parents[2]

ROOTS = ("core", "backends", "providers", "testing", "cli", "telemetry")

SECONDS = 1200
"""Real seconds for all tests of a mutant: one under which they hang is ended."""

PATIENCE = 300
"""Real seconds for one test: a busy machine is no reason to call a mutant noticed."""

SQLITE = "tests/testing/test_conformance_sqlite.py"
OWNERS = ("tests/backends/test_workers.py", "tests/backends/test_zombie.py", "tests/backends/test_crash_loops.py")
STORED = ("tests/backends/test_group_commit.py", "tests/backends/test_disk_trouble.py", "tests/backends/test_zombie.py")
FLOW = ("tests/backends/test_flow_model.py", "tests/backends/test_flow_crash.py")

FITTING: dict[str, tuple[Sequence[str], str]] = {
    "group_commit": (STORED, "c03 or c08 or c17"),
    "sqlite_file": (STORED, "c03 or c08 or c17"),
    "sqlite_journal": ((*STORED, *OWNERS), "c03 or c06 or c08 or c17 or c20 or c26"),
    "claims": (OWNERS, "c06 or c08 or c25 or c26 or c30"),
    "crash_watch": (("tests/backends/test_crash_loops.py", "tests/backends/test_crash_loop_kill.py"), "c25"),
    "crashes": (("tests/backends/test_crash_loops.py", "tests/backends/test_crash_loop_kill.py"), "c25"),
    "driver": (
        (*OWNERS, "tests/backends/test_loop_goes_on.py", "tests/backends/test_user_code.py"),
        "c06 or c12 or c21",
    ),
    "lease": (OWNERS, "c06 or c08"),
    "ownership": (OWNERS, "c06 or c08 or c25 or c26"),
    "journal_types": (OWNERS, "c06 or c25"),
    "journal": ((*STORED, *FLOW), "c16 or c17 or c21 or c22 or c30"),
    "records": ((*STORED, *OWNERS), "c03 or c08 or c21 or c26 or c28"),
    "steps": ((*OWNERS, *STORED), "c05 or c08 or c10 or c18 or c19 or c20 or c25"),
    "scheduler": ((*OWNERS, "tests/backends/test_clock.py"), "c06 or c18 or c19 or c21"),
    "backend": ((*OWNERS, "tests/backends/test_client.py", "tests/backends/test_memory.py"), "c06 or c26 or c32"),
    "admission": (FLOW, "c22 or c30"),
    "slots": ((*FLOW, "tests/backends/test_workers.py"), "c30"),
}
"""For a module of the engine, the files of tests about it, and the clauses whose tests are run on SQLite."""

REST = ((*OWNERS, *STORED), "c03 or c06 or c08 or c12 or c17 or c20 or c21")


def noticed(change: Change, copy: Path) -> str | None:
    """The test that fails with a change, or ``"time"``; ``None`` if none does."""
    place = copy / change.path.relative_to(ROOT)
    before = place.read_text(encoding="utf-8")
    place.write_text(changed_source(change), encoding="utf-8")
    files, clauses = FITTING.get(change.path.stem, REST)
    try:
        for arguments in ([*files], [SQLITE, "-k", clauses]):
            found = _first_failure(arguments, copy)
            if found is not None:
                return found
    finally:
        place.write_text(before, encoding="utf-8")
    return None


def _first_failure(arguments: Sequence[str], copy: Path) -> str | None:
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-o", f"timeout={PATIENCE}"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    path = os.pathsep.join(str(copy / root) for root in ROOTS)
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "time"
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"exit {done.returncode}: {done.stdout[-300:]}"


def main() -> int:
    """Try the mutants that fit; the exit status says whether one survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.in_copy")
    parser.add_argument(
        "--only", required=True, help="a pattern that fits a mutant's line, as the other program prints it"
    )
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    made = [change for path in (*sorted(FOLDER.rglob("*.py")), *SHARED) for change in changes_in(path)]
    chosen = [change for change in made if re.search(asked.only, str(change))]
    random.Random(asked.seed).shuffle(chosen)
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="durably-mutants-") as folder:
        copy = Path(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "site", ".*_cache"))
        if (broken := _first_failure(["tests/backends/test_memory.py"], copy)) is not None:
            raise SystemExit(f"the tests fail without a mutant: {broken}")
        for change in chosen[: asked.sample]:
            found = noticed(change, copy)
            survivors += found is None
            print(f"SURVIVED  {change}" if found is None else f"killed    {change}  by {found}", flush=True)
    print(f"{len(chosen[: asked.sample])} tried, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
