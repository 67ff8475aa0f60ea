"""A law that does not hold, in words for somebody who meets durable execution for the first time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from durably.testing.difference import Difference

__all__ = [
    "AT_LEAST_ONCE",
    "DECIDES",
    "ENGINE",
    "KEY_IGNORED",
    "MUST_END",
    "NO_LONGER_FITS",
    "SECRETS",
    "BrokenLawError",
    "Violation",
    "explain_repeated_effect",
    "explain_repeated_step",
    "raise_violations",
    "times",
]


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken law.

    Attributes:
        law: Its name, such as ``"L1"``; a key of ``durably.testing.laws.LAWS``.
        found: What was found.
        meaning: Why that is wrong and what to do about it.
        step: The key of the step it is about; empty if it is about the run.
        difference: The first difference from the run without a crash, or ``None``.
        line: The line of the user's code that it comes from, such as ``"app.py:12 in refund"``; empty if none is known.
        patch: What to change there, in words; empty if the cause is not a common one.
    """

    law: str
    found: str
    meaning: str
    step: str = ""
    difference: Difference | None = None
    line: str = ""
    patch: str = ""


class BrokenLawError(AssertionError):
    """A law does not hold.

    Attributes:
        violations: Every one that was found.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("\n".join(f"{each.law}: {each.found}" for each in violations))
        self.violations = tuple(violations)


def raise_violations(violations: Iterable[Violation]) -> None:
    """Raise what was found, if anything was.

    Raises:
        BrokenLawError: With all of them.
    """
    found = list(violations)
    if found:
        raise BrokenLawError(found)


ENGINE = "This is a fault of the backend, not of your agent: your code cannot cause it."
MUST_END = f"A run must always end by itself when a worker is up again. {ENGINE}"
SECRETS = "Give secrets to the backend as resources= or secrets=, and pass none to a step as an argument."
AT_LEAST_ONCE = (
    "A crash can fall between an effect and its record, so a step's body may run again after the crash. Pass "
    "current_step().idempotency_key to the service that has the effect (a payment provider, a unique column), which "
    "then ignores the second request. Or declare the tool @tool(effect='at_most_once'): it never runs twice, and is "
    "reported as interrupted instead."
)
NO_LONGER_FITS = "A run must not continue with code that no longer fits its records."
KEY_IGNORED = (
    "The step ran again after the crash, as steps may, under the same idempotency key. The body read that key, but the "
    "service that has the effect ignores it. It must remember the keys it has seen and do nothing for a known one, as "
    "payment providers and unique columns do."
)
DECIDES = (
    "Code outside the steps runs again from its beginning after a crash, and must take the same path. It took another "
    "one, so it depends on something that is not recorded: the clock, a random number, the order of a set, a "
    "global variable, a file. Read such things inside a step, ctx.step.run('look', ...), which records the value."
)


def explain_repeated_step(repeated: bool) -> str:
    """Why a result or a record differs: a body answered differently the second time, or code took another way."""
    return AT_LEAST_ONCE if repeated else DECIDES


def explain_repeated_effect(repeated: bool, used_key: bool) -> str:
    """Why the world differs: nothing could tell the second request from the first, or nobody looked at its key."""
    return KEY_IGNORED if repeated and used_key else explain_repeated_step(repeated)


def times(count: int) -> str:
    """A count in words: never, once, twice."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
