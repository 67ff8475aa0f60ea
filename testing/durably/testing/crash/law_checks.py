"""The verdict on an experiment: a run that was crashed, beside the run that was not, held to every law.

Owns how an experiment's data goes to the laws, which stand in ``durably.testing.laws``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from durably.core import AgentResult
from durably.testing.crash.experiment import Experiment
from durably.testing.difference import first_difference
from durably.testing.laws import (
    Outcome,
    Violation,
    append_only,
    children_match_their_calls,
    distinct_attempts,
    ends_once,
    every_run_ends,
    limited_starts,
    most_starts,
    no_start_after_commit,
    one_key_per_step,
    same_event_count,
    same_number_of_children,
    same_outcome,
    same_records,
    same_started_runs,
    same_value,
    settled_once,
    valid_transcript,
)
from durably.testing.laws.violation import MUST_END
from durably.testing.ledger import repeated_step
from durably.testing.snapshot import RunLog, Snapshot

__all__ = ["CHECKS", "Check", "Judge", "broken_laws", "was_interrupted"]

Check = Callable[[Experiment, Experiment], Iterator[Violation]]
"""Takes the baseline, which is the experiment without a crash, and the one to be judged."""


def _outcome(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    yield from same_outcome(_what(baseline), _what(found), repeated_step(baseline.ledger, found.ledger))


def _what(experiment: Experiment) -> Outcome:
    history = experiment.history
    return Outcome(
        status=history.status if len(history) else None,
        output=experiment.output,
        error=experiment.error,
        state=experiment.state,
        history=history,
    )


def _commits(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    yield from no_start_after_commit(found.ledger)


def _starts(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    unrecorded = most_starts(baseline.ledger) if found.forgets_attempts else None
    yield from limited_starts(found.ledger.entries, found.after, unrecorded=unrecorded)


def _journal(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    for before in found.before:
        yield from append_only(before, found.after)
    yield from settled_once(found.after)


def _records(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    yield from same_records(baseline.history, found.history, repeated_step(baseline.ledger, found.ledger))


def _transcript(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    if not isinstance(found.value, AgentResult):
        return
    if found is not baseline and first_difference(baseline.history, found.history) is None:
        return  # the conversation is made of the records, and that of the baseline was looked at
    with suppress(LookupError):  # a result that is part of another function's result has no conversation
        yield from valid_transcript(found.value.messages)


def _events(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    yield from same_event_count(baseline.after.events, found.after.events)
    if found.run_id == baseline.run_id:  # else the ids of all other runs differ too
        yield from same_started_runs(_started_by_events(baseline), _started_by_events(found))


def _started_by_events(experiment: Experiment) -> list[RunLog]:
    return [log for log in experiment.after.runs.values() if log.parent is None and log.id != experiment.run_id]


def _children(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    yield from children_match_their_calls(found.after)
    yield from same_number_of_children(len([log for log in baseline.after.runs.values() if log.parent]), found.after)


def _keys(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    yield from one_key_per_step(found.ledger)
    yield from distinct_attempts(found.ledger)


def _values(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    if found.error is None and (type(found.value) is not type(baseline.value) or found.output == baseline.output):
        yield from same_value(baseline.value, found.value)  # values of other JSON are another law's matter


def _ends(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    if found.trouble:
        yield Violation("L12", found.trouble, MUST_END)
        return
    live = [log for log in baseline.after.runs.values() if not log.status.final]
    yield from every_run_ends(found.after, live=len(live))


def _ends_once(baseline: Experiment, found: Experiment) -> Iterator[Violation]:
    yield from ends_once(found.after)


CHECKS: dict[str, Check] = {
    "L1": _outcome,
    "L2": _commits,
    "L3": _starts,
    "L4": _journal,
    "L5": _records,
    "L6": _transcript,
    "L7": _events,
    "L8": _children,
    "L9": _keys,
    "L10": _values,
    "L12": _ends,
    "L13": _ends_once,
}
"""How an experiment is held to each law. L11 stands in ``code_changes``; L14 needs secrets, which the matrix has."""

OF_THE_END = ("L1", "L5", "L6", "L7", "L8", "L10", "L12", "L13")
"""What they find follows from how an experiment ended alone: not from its crashes, nor from its ledger."""

_ANOTHER_END_MAY_CHANGE = ("L1", "L5", "L7", "L8", "L10")
"""What cannot be held against a run that was cut off, by a crash in a step that may run only once or by the harness."""


class Judge:
    """Holds experiments to the laws. Those that share a last life have one end, which is looked at once.

    Args:
        baseline: The run without a crash.
    """

    def __init__(self, baseline: Experiment) -> None:
        self._baseline = baseline
        self._faultless: dict[int, Snapshot] = {}

    def broken_laws(self, found: Experiment) -> list[Violation]:
        """What is broken in an experiment, the most telling first."""
        known = self._faultless.get(id(found.after)) is found.after
        violations = [
            violation
            for law, check in CHECKS.items()
            if not (known and law in OF_THE_END)
            for violation in check(self._baseline, found)
        ]
        if not any(each.law in OF_THE_END for each in violations):
            self._faultless[id(found.after)] = found.after
        if violations and (found.trouble or was_interrupted(found)):
            violations = [each for each in violations if each.law not in _ANOTHER_END_MAY_CHANGE]
        if any(each.law == "L1" for each in violations):
            violations = [each for each in violations if each.law != "L5"]  # the same thing, said twice
        return violations


def broken_laws(baseline: Experiment, found: Experiment) -> list[Violation]:
    """Hold one experiment to every law.

    Args:
        baseline: The run without a crash.
        found: The run that was crashed.

    Returns:
        What is broken, the most telling first.
    """
    return Judge(baseline).broken_laws(found)


def was_interrupted(experiment: Experiment) -> bool:
    """Whether a crash cut off a step that may run only once: its caller is told so, and the run may end otherwise."""
    if not experiment.fired and not experiment.ledger.life:
        return False
    interrupted = {
        record.key
        for record in experiment.after.records()
        if record.error is not None and record.error.get("type") == "StepInterruptedError"
    }
    return bool(interrupted) and any(entry.key in interrupted for entry in experiment.ledger.of("crash"))
