"""The inner loop: the tests that a change is likely to break, the likeliest first, for less than a minute.

``python -m tests.quick [--since REF] [--list] [PYTEST OPTION ...]``, or ``make quick``. A change is what differs from
the point where this branch left `main`, with everything that is not committed. It is no proof: `make test` runs all.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

__all__ = ["Budget", "changed_files", "likely_tests"]

ROOT = Path(__file__).parent.parent
PARTS = ("core", "backends", "providers", "telemetry", "testing", "cli")
SECONDS = 40.0
"""After so many seconds no further test begins."""

ALWAYS = ("tests/test_layout.py", "tests/testing/test_conformance_memory.py")
SERVERS = ("tests/temporal/", "tests/inngest/")
"""Folders whose tests take seconds each: only those that changed themselves, or that name a changed module."""


def changed_files(since: str) -> list[str]:
    """The files that differ from a revision, and those that git does not know yet."""
    base = _git("merge-base", "HEAD", since)[0]
    files = [*_git("diff", "--name-only", base), *_git("ls-files", "--others", "--exclude-standard")]
    return sorted({each for each in files if (ROOT / each).exists()})


def _git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def likely_tests(changed: Iterable[str]) -> list[str]:
    """The test files, or tests, to run for changed files: the likeliest first.

    First come changed tests, then those with the name of a changed module or page, then those that import it, then the
    other tests of its folder, and in the end what always runs.
    """
    changed = list(changed)
    modules = [each for each in changed if each.endswith(".py") and each.split("/")[0] in PARTS]
    wanted: list[str] = [each for each in changed if _is_test(each)]
    for each in changed:
        if each.endswith(".md"):
            kinds = ["block_runs"] if _has_blocks(each) else []
            page = each.removeprefix("docs/")
            wanted += [f"tests/test_docs.py::test_every_{kind}[{page}]" for kind in (*kinds, "link_leads_somewhere")]
    wanted += [test for module in modules for test in _test_files() if Path(module).stem in Path(test).stem]
    wanted += [test for module in modules for test in _test_files() if _dotted(module) in _imports(test)]
    folders = {f"tests/{module.split('/')[0]}/" for module in modules}
    for folder in sorted(folders):
        wanted += [test for test in _test_files() if test.startswith(folder) and not test.startswith(SERVERS)]
    if modules:
        wanted += ALWAYS
    return list(dict.fromkeys(wanted))


def _is_test(path: str) -> bool:
    return path.startswith("tests/") and Path(path).name.startswith("test_") and path.endswith(".py")


def _has_blocks(page: str) -> bool:
    return "\n```python\n" in (ROOT / page).read_text(encoding="utf-8") and not Path(page).name.startswith("temporal")


@cache
def _test_files() -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")))


@cache
def _imports(test: str) -> frozenset[str]:
    return frozenset(_modules(ast.parse((ROOT / test).read_text(encoding="utf-8"))))


def _modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _dotted(module: str) -> str:
    return ".".join(Path(module).with_suffix("").parts[1:]).removesuffix(".__init__")


class Budget:
    """A plugin that begins no test once the time is up.

    Args:
        seconds: How long tests may begin.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.left = 0

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        session = item.session
        if time.monotonic() > self._until and not session.shouldstop:
            self.left = len(session.items) - session.items.index(item) - 1
            session.shouldstop = f"the time is up: {self.left} tests did not run; `make test` runs all"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.quick", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--since", default="main", help="what to compare with; main if not given")
    parser.add_argument("--list", action="store_true", help="print the tests and run none")
    known, options = parser.parse_known_args(arguments)
    try:
        changed = changed_files(known.since)
    except subprocess.CalledProcessError as error:
        parser.error(f"git cannot compare with {known.since!r} ({error.stderr.strip()}): name a revision with --since")
    tests = likely_tests(changed)
    if known.list or not tests:
        print("\n".join(tests) or f"nothing differs from {known.since} that has a test")
        return 0
    budget = Budget(SECONDS)
    code = int(pytest.main(["-q", "-n", "0", "-x", *options, *tests], plugins=[budget]))
    stopped_in_time = budget.left and code == pytest.ExitCode.INTERRUPTED
    return 0 if stopped_in_time else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
