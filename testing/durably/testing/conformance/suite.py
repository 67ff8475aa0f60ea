"""The suite as a whole: which test belongs to which clause, which gaps are declared, and the report."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from durably.testing.conformance.subject import Kill, Subject

__all__ = ["CLAUSES", "TESTS", "Outcome", "RefusedError", "Report", "Test", "check", "clause", "load_gaps", "save_gaps"]

Test = Callable[[Subject], Awaitable[None]]

GAP_PATIENCE = 0.2
"""The part of a subject's patience that a declared gap gets: many of them show by waiting for ever."""

LOOK_SECONDS = 0.02
"""How often is looked whether a test has ended."""

TESTS: dict[str, Test] = {}
"""Every test of the suite by its name, as a coroutine function of a subject."""

CLAUSES: dict[str, str] = {
    "C01": "step keys: numbered in program order, scoped by branch",
    "C02": "ids derived from run id and step key alone",
    "C03": "a committed body never runs again",
    "C04": "the same value, of the same type, live and on replay",
    "C05": "a body runs again only after a failure or a crash; same idempotency key, own attempt number",
    "C06": "after any crash a run resumes by itself and ends as without it",
    "C07": "replay has no effects, writes nothing, logs nothing twice",
    "C08": "of two workers with one run, the stale one is fenced off",
    "C09": "changed code is detected",
    "C10": "retries, back-off, RetryAfterError, NonRetriableError",
    "C11": "StepError, catchable, the same on replay",
    "C12": "a failed function is retried, then FAILED, and on_failure runs once",
    "C13": "values without JSON, too large or too deep, and what is no id or no time, fail at once",
    "C14": "no step inside a body",
    "C15": "nobody else retries",
    "C16": "invoke: one child, its output, its failure, its timeout",
    "C17": "send_event: each event once, ts, never waiting",
    "C18": "gather: order, all branches end, one ExceptionGroup",
    "C19": "a sleep ends at its recorded moment",
    "C20": "wait_for_event: the first match after its start, or None",
    "C21": "cancel stops a run and its children, for good",
    "C22": "singleton: cancel, skip and queue",
    "C23": "records are JSON with a schema version",
    "C24": "no secret is written",
    "C25": "crash loops end: a step fails past its crash limit, and a run whose code crashes",
    "C26": "retry, fork, code that does not fit, patches",
    "C27": "whatever a body or a function raises ends as its failure, and harms nobody else",
    "C28": "observers are told each thing once, in order, never in a replay",
    "C29": "the stream of a run: the same in every process, resumable, abandoned pieces marked",
    "C30": "flow control: when a run begins, how many bodies run, and a key that is absent groups nobody",
    "C31": "approvals: what is pending is listed, and answered once",
    "C32": "finding: a run is what was asked for, is found, and says where it stands; early events are not lost",
    "C33": "tools: what they know of the run, and what they may be",
    "C34": "sessions: each word is kept once, and a message that arrives is answered once",
}


class RefusedError(Exception):
    """Raised by a test: the backend refuses what is tested at start-up, with this reason."""


def clause(test: Test) -> Callable[[Subject], None]:
    """Add a test to the suite. What it returns is what pytest collects: it needs one fixture, ``subject``."""
    name = test.__name__
    number = re.match(r"test_(c\d\d)_", name)
    if number is None or number[1].upper() not in CLAUSES or name in TESTS:
        raise ValueError(f"{name!r} is not a new test name of the form test_c04_what_must_hold")
    TESTS[name] = test

    def run(subject: Subject) -> None:
        outcome = _run(name, subject)
        if outcome.result == "gap":
            pytest.xfail(outcome.detail)
        if outcome.error is not None:
            raise outcome.error

    run.__name__ = run.__qualname__ = name
    run.__module__ = test.__module__
    run.__doc__ = inspect.getdoc(test)
    return run


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one test ended.

    Attributes:
        test: Its name.
        result: ``passed``, ``failed``, or ``gap``: it failed as was declared.
        detail: Why.
        error: What it raised, for ``failed``.
    """

    test: str
    result: Literal["passed", "failed", "gap"]
    detail: str = ""
    error: BaseException | None = None

    @property
    def clause(self) -> str:
        """The clause it belongs to, such as ``"C04"``."""
        return self.test[5:8].upper()


def _run(name: str, subject: Subject) -> Outcome:
    reason = subject.gaps.get(name)
    patience = subject.patience if reason is None else GAP_PATIENCE * subject.patience
    try:
        asyncio.run(_bounded(TESTS[name], subject, patience))
    except RefusedError as refused:
        return Outcome(test=name, result="gap", detail=reason or str(refused))
    except (Exception, Kill, asyncio.CancelledError) as error:
        if reason is not None:
            return Outcome(test=name, result="gap", detail=reason)
        return Outcome(test=name, result="failed", detail=f"{type(error).__name__}: {error}", error=error)
    if reason is None:
        return Outcome(test=name, result="passed")
    text = f"{name} is declared as a gap ({reason}) and passes: take it out of the declared gaps"
    return Outcome(test=name, result="failed", detail=text, error=AssertionError(text))


async def _bounded(test: Test, subject: Subject, patience: float) -> None:
    task = asyncio.ensure_future(test(subject))
    # Counted in short waits: on a busy machine each takes longer than it says, and so does what is waited for.
    for _ in range(math.ceil(patience / LOOK_SECONDS)):
        done, _ = await asyncio.wait({task}, timeout=LOOK_SECONDS)
        if done:
            return task.result()
    task.cancel()
    await asyncio.wait({task}, timeout=patience)
    raise AssertionError(f"the test did not end within {patience:g} seconds: something waits for ever")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a backend keeps of the contract.

    Attributes:
        backend: Its name.
        outcomes: One a test.
    """

    backend: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed that was not declared."""
        return not self.failures

    @property
    def failures(self) -> list[Outcome]:
        """The tests that failed, and the declared gaps that passed."""
        return [outcome for outcome in self.outcomes if outcome.result == "failed"]

    def gaps(self) -> dict[str, str]:
        """Every test that does not pass, with the declared reason or what went wrong: for :func:`save_gaps`."""
        return {outcome.test: outcome.detail for outcome in self.outcomes if outcome.result != "passed"}

    def __str__(self) -> str:
        """A table, a line for each clause, and below it what failed."""
        lines = [f"{self.backend}: {len(self.outcomes)} tests of {len(CLAUSES)} clauses"]
        for number, title in CLAUSES.items():
            results = [outcome.result for outcome in self.outcomes if outcome.clause == number]
            words = ", ".join(
                f"{results.count(word)} {word}" for word in ("passed", "gap", "failed") if word in results
            )
            lines.append(f"{number}  {words or 'not tested':<22} {title}")
        lines += [f"{outcome.result}: {outcome.test}: {outcome.detail}" for outcome in self.outcomes if outcome.detail]
        return "\n".join(lines)


def check(subject: Callable[[], Subject], *, tests: str = "", name: str = "") -> Report:
    """Run the suite without pytest, in this thread; no event loop may be running.

    Args:
        subject: Makes a new subject, with empty storage, for each test.
        tests: Only those whose names hold this text, such as ``"_c08_"``.
        name: What the report calls the backend; left out, the subject's class.
    """
    outcomes = []
    for test in TESTS:
        if tests in test:
            made = subject()
            name = name or type(made).__name__
            outcomes.append(_run(test, made))
    return Report(backend=name, outcomes=tuple(outcomes))


def load_gaps(path: str | Path) -> dict[str, str]:
    """The declared gaps in a TOML file of lines ``test_name = "reason"``, for :attr:`Subject.gaps`.

    Raises:
        ValueError: If it names a test that does not exist.
    """
    gaps = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    unknown = sorted(set(gaps) - set(TESTS))
    if unknown:
        raise ValueError(f"{path}: there is no test called {', '.join(unknown)}")
    return {name: str(reason) for name, reason in gaps.items()}


def save_gaps(gaps: Mapping[str, str], path: str | Path) -> None:
    """Write what :func:`load_gaps` reads, in the order of the tests."""
    lines = [f"{name} = {_toml(gaps[name])}\n" for name in TESTS if name in gaps]
    Path(path).write_text("".join(lines), encoding="utf-8")


def _toml(text: str) -> str:
    # JSON's strings are TOML's, but for half characters, which TOML has not, and DEL, which it wants escaped.
    whole = text.encode("utf-8", "replace").decode()
    return json.dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")
