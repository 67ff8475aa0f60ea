"""Whether two runs without a crash are the same; if not, nothing can be said about a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durably.core import DurablyError, Function
from durably.testing.crash.ambient_inputs import AmbientInputs
from durably.testing.crash.experiment import Experiment, run_experiment
from durably.testing.crash.patches import Cause, changed_globals, read_globals
from durably.testing.crash.scenario import Scenario
from durably.testing.difference import Difference, first_difference, same_text

__all__ = ["NotDeterministicError", "differ", "explain", "find_causes"]


class NotDeterministicError(DurablyError, AssertionError):
    """Two runs without any crash differ, so a difference after a crash would prove nothing."""


def differ(baseline: Experiment, again: Experiment) -> Difference | None:
    """The first difference between two runs without a crash, in the records or in the world."""
    difference = first_difference(baseline.history, again.history)
    if difference is None and not same_text(baseline.state, again.state):
        difference = Difference("", f"the world {baseline.state}", f"the world {again.state}", "state")
    return difference


def explain(difference: Difference, causes: Sequence[Cause], line: str = "") -> str:
    """The difference and its likely cause, for whoever wrote the code."""
    where = f"at step {difference.key!r}" if difference.key else "at its end"
    if line:
        where += f", {line}"
    depends = f"What made the difference was {' and '.join(each.words for each in causes)}." if causes else ""
    patches = "".join(f"\n  patch: {each.patch}" for each in causes)
    if difference.field == "output":
        advice = (
            "The step's body answers differently each time, so nothing can be said about a crash: let the test's tools "
            "and model answer from a script, without the clock and without chance."
        )
    elif difference.field == "state":
        advice = (
            "The world is not fresh, or is changed by something other than the run: build a new one in the factory."
        )
    else:
        advice = (
            "Code outside the steps decided by something that no record holds, such as the clock, a random number or "
            "the order of a set. After a crash it would take another way than the one on record. Read such things "
            "inside a step, ctx.step.run('look', ...), which remembers what it saw; put a set in order with "
            "sorted(...)."
        )
    if depends:
        depends = f"\n{depends}" if patches else f" {depends}"
    return (
        f"two runs without any crash differ, first {where}.\n"
        f"  the first run:  {difference.expected}\n"
        f"  the second run: {difference.found}\n"
        f"{advice}{patches}{depends}"
    )


async def find_causes(
    scenario: Scenario, baseline: Experiment, shift: int, functions: Mapping[str, Function[Any, Any]]
) -> list[Cause]:
    """Which ambient inputs make a difference when they alone change, or, if none has to, which global variables."""
    before = read_globals(functions)
    if differ(baseline, await run_experiment(scenario)) is not None:  # it differs by itself
        return changed_globals(before, read_globals(functions))
    return [
        Cause(words, ambient.lines.get(words, ""))
        for words, ambient in AmbientInputs.of_life(shift).single().items()
        if differ(baseline, await run_experiment(scenario, ambient=ambient)) is not None
    ]
