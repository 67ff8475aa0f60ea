"""Make mutants of the replay engine by rule, and put them through the conformance suite on memory.

Each mutant changes one function in a forked process. Only tests that enter the changed line are run, the quick ones
first, up to the first that fails. A mutant that no test notices has survived: it is either equal to the original, or a
word of the contract that no test covers.

Called as: python -m tests.mutation [--sample N] [--seed N] [--minutes N] [--only PATTERN]
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import pkgutil
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import durably.backends.replay
from durably.core import attempts, replay, step_keys
from durably.testing.conformance import TESTS, MemorySubject, check
from tests.mutation.rules import Change, changes_in, mutated_code

FOLDER = Path(durably.backends.replay.__path__[0])

SHARED = tuple(Path(str(module.__file__)) for module in (attempts, replay, step_keys))
"""The rules that the replay engine shares with the others."""

NOT_IN_MEMORY = ("sqlite", "wal", "file")
"""Parts of the names of modules that the memory engine does not enter."""

PATIENCE = 5.0
"""Real seconds a test may take; a healthy engine needs a fraction of one."""

MUTANT_SECONDS = 60
"""Real seconds for all tests of a mutant: one that never gives way to other tasks is ended by force."""


class Patient(MemorySubject):
    """The memory engine; what hangs is given up soon."""

    patience = PATIENCE


class Traced(MemorySubject):
    """The memory engine while its lines are followed, which takes many times as long."""

    patience = 120.0


Line = tuple[str, int]


@dataclass
class Coverage:
    """Which tests enter which lines of the engine, and how long each test takes in seconds."""

    tests: dict[Line, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def measure(self, files: Sequence[Path]) -> None:
        """Run the suite once.

        Raises:
            SystemExit: If it is not green.
        """
        names = {str(path) for path in files}
        for test in TESTS:
            entered: set[Line] = set()

            def local(frame: FrameType, event: str, _: Any, entered: set[Line] = entered) -> Any:
                entered.add((frame.f_code.co_filename, frame.f_lineno))
                return local

            def enter(frame: FrameType, event: str, _: Any, local: Any = local) -> Any:
                return local if frame.f_code.co_filename in names else None

            began = time.monotonic()
            sys.settrace(enter)
            try:
                failures = [each for each in check(Traced, tests=test).failures if each.test == test]
            finally:
                sys.settrace(None)
            if failures:
                raise SystemExit(f"the suite fails without a mutant: {test}: {failures[0].detail}")
            self.seconds[test] = time.monotonic() - began
            for line in entered:
                self.tests.setdefault(line, []).append(test)

    def order(self, change: Change, killers: Sequence[str]) -> list[str]:
        """The tests that enter a changed line: those that killed others of late, then the quick ones."""
        known = {name: place for place, name in enumerate(killers)}
        entering = self.tests.get((str(change.path), change.line), [])
        return sorted(entering, key=lambda name: (self.seconds[name] > 0.5, known.get(name, 1000), self.seconds[name]))


def functions_of(change: Change) -> list[FunctionType]:
    """The function objects that a change is about."""
    return [
        each
        for each in gc.get_objects()
        if isinstance(each, FunctionType)
        and each.__code__.co_qualname == change.function
        and each.__code__.co_filename == str(change.path)
    ]


def first_failure(order: list[str]) -> str | None:
    """The first test that fails, or ``None``."""
    return next((each.test for name in order for each in check(Patient, tests=name).failures), None)


def killer(
    change: Change, code: CodeType, look: Callable[[], str | None], *, seconds: int = MUTANT_SECONDS
) -> str | None:
    """The test that notices a change, ``"time"`` if the process had to be ended, or ``None``.

    Args:
        change: The change.
        code: The function with it.
        look: Runs tests; the name of the first that fails. It is called in a process of its own.
        seconds: Real seconds for that.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(seconds)
        try:
            for each in functions_of(change):
                each.__code__ = code
            os.write(writing, (look() or "-").encode())
        except BaseException as error:  # the engine could not even be opened
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        said = os.read(reading, 200).decode()
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return None if said == "-" else said or "time"


def main() -> int:
    """Try a sample; the exit status says whether a mutant survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--only", default="", help="a pattern that fits a mutant's line, such as driver.py|Driver.attempt"
    )
    asked = parser.parse_args()
    logging.lastResort = None  # what mutants do is not to be read on the terminal
    for module in pkgutil.walk_packages([str(FOLDER)], "durably.backends.replay."):
        importlib.import_module(module.name)
    files = [path for path in sorted(FOLDER.rglob("*.py")) if not any(word in path.stem for word in NOT_IN_MEMORY)]
    made = [change for path in (*files, *SHARED) for change in changes_in(path) if re.search(asked.only, str(change))]
    coverage = Coverage()
    coverage.measure([*files, *SHARED])
    entered = [change for change in made if (str(change.path), change.line) in coverage.tests]
    random.Random(asked.seed).shuffle(entered)
    print(f"{len(made)} mutants, {len(entered)} of them in lines that the suite enters", flush=True)

    killers: list[str] = []
    began, survivors, tried = time.monotonic(), 0, 0
    for change in entered[: asked.sample]:
        if time.monotonic() - began > asked.minutes * 60:
            break
        tried += 1
        found = killer(change, mutated_code(change), partial(first_failure, coverage.order(change, killers)))
        if found is None:
            survivors += 1
            print(f"SURVIVED  {change}", flush=True)
            continue
        print(f"killed    {change}  by {found}", flush=True)
        if found in TESTS:
            killers = [found, *(name for name in killers if name != found)][:20]  # likely to notice the next, too
    print(f"{tried} tried, {tried - survivors} killed, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
