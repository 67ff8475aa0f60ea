"""Make mutants of the replay engine by rule, and put them through the conformance suite on memory.

Each mutant changes one function in a forked process, which stops at the first test that fails. A mutant that no test
notices is printed: it is either equal to the original, or a word of the contract that no test covers.

Called as: python -m tests.mutation [--sample N] [--seed N] [--minutes N] [--only TEXT]
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import pkgutil
import random
import select
import signal
import sys
import time
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import durably.backends.replay
from durably.testing.conformance import TESTS, MemorySubject, Outcome, check
from tests.mutation.rules import Change, changes_in, mutated_code

FOLDER = Path(durably.backends.replay.__path__[0])

NOT_IN_MEMORY = ("sqlite", "wal", "file")
"""Parts of the names of modules that the memory engine does not enter."""

PATIENCE = 3.0
"""Real seconds a test may take; a healthy engine needs a fraction of one."""

MUTANT_SECONDS = 240.0


class Patient(MemorySubject):
    """The memory engine; what hangs is given up soon."""

    patience = PATIENCE


def covered_lines() -> set[tuple[str, int]]:
    """The lines of the engine that the suite enters, and whether it is green at all."""
    lines: set[tuple[str, int]] = set()
    folder = str(FOLDER)

    def local(frame: FrameType, event: str, _: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(folder) else None

    sys.settrace(enter)
    try:
        failures = check(MemorySubject).failures
    finally:
        sys.settrace(None)
    if failures:
        raise SystemExit(f"the suite fails without a mutant: {failures[0].test}: {failures[0].detail}")
    return lines


def functions_of(change: Change) -> list[FunctionType]:
    """The function objects that a change is about."""
    return [
        each
        for each in gc.get_objects()
        if isinstance(each, FunctionType)
        and each.__code__.co_qualname == change.function
        and each.__code__.co_filename == str(change.path)
    ]


def first_failure(order: list[str]) -> Outcome | None:
    """The first test that fails, or ``None``."""
    for name in order:
        for outcome in check(Patient, tests=name).failures:
            return outcome
    return None


def killer(change: Change, code: CodeType, order: list[str]) -> str | None:
    """The test that notices a change, ``"time"`` if the process had to be ended, or ``None``."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            for each in functions_of(change):
                each.__code__ = code
            failure = first_failure(order)
            os.write(writing, (failure.test if failure is not None else "-").encode())
        except BaseException as error:  # the engine could not even be opened
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], MUTANT_SECONDS)
        said = os.read(reading, 200).decode() if ready else "time"
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return None if said == "-" else said or "the process died"


def main() -> int:
    """Try a sample; the exit status says whether a mutant survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--only", default="", help="a part of a mutant's line, such as driver.py or Driver.attempt")
    asked = parser.parse_args()
    logging.lastResort = None  # what mutants do is not to be read on the terminal
    for module in pkgutil.walk_packages([str(FOLDER)], "durably.backends.replay."):
        importlib.import_module(module.name)
    covered = covered_lines()
    files = [path for path in sorted(FOLDER.rglob("*.py")) if not any(word in path.stem for word in NOT_IN_MEMORY)]
    made = [change for path in files for change in changes_in(path) if asked.only in str(change)]
    entered = [change for change in made if (str(change.path), change.line) in covered]
    random.Random(asked.seed).shuffle(entered)
    print(f"{len(made)} mutants in {len(files)} files, {len(entered)} in lines that the suite enters", flush=True)

    order, began, survivors, tried = list(TESTS), time.monotonic(), [], 0
    for change in entered[: asked.sample]:
        if time.monotonic() - began > asked.minutes * 60:
            break
        tried += 1
        found = killer(change, mutated_code(change), order)
        if found is None:
            survivors.append(change)
            print(f"SURVIVED  {change}", flush=True)
        elif found in order:
            order.remove(found)  # what has noticed one is likely to notice the next
            order.insert(0, found)
    print(f"{tried} tried, {tried - len(survivors)} killed, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
