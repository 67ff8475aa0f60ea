"""L2, L3, L9: how often bodies ran, and under which keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from durably.testing.laws.violation import ENGINE, Violation, times
from durably.testing.ledger import Entry
from durably.testing.snapshot import Snapshot

__all__ = [
    "distinct_attempts",
    "limited_starts",
    "most_starts",
    "no_start_after_commit",
    "one_key_per_step",
    "unseen_bodies",
]


StepPlace = tuple[str, str]
"""A step: the id of its run and its key."""

FunctionStep = tuple[str, str]
"""A step of any run of a function: the id of the function and the key."""


def _taken_up(after: Snapshot) -> Counter[StepPlace]:
    """How often a failed step was taken up again by a retry of its run."""
    taken: Counter[StepPlace] = Counter()
    for log in after.runs.values():
        failed: set[str] = set()
        resumed: set[str] = set()
        for record in log.history:
            if record.status == "resumed":
                resumed |= failed
            elif record.key in resumed:
                taken[log.id, record.key] += 1
                resumed.discard(record.key)
            if record.key and record.status == "failed":
                failed.add(record.key)
    return taken


def no_start_after_commit(entries: Iterable[Entry], after: Snapshot | None = None) -> Iterator[Violation]:
    """L2: no body starts once its step is recorded. Holds of workers that own their run, not of stale ones.

    Args:
        entries: The ledger.
        after: What the store held in the end, if runs were retried.
    """
    taken = Counter[StepPlace]() if after is None else _taken_up(after)
    committed: set[StepPlace] = set()
    told: set[StepPlace] = set()
    for entry in entries:
        step = (entry.run_id, entry.key)
        if entry.kind == "committed":
            taken[step] -= 1
            if taken[step] < 0:
                committed.add(step)
        elif entry.kind == "started" and step in committed and step not in told:
            told.add(step)
            what = f"the body of {entry.key!r} started again after its record was written"
            yield Violation("L2", what, ENGINE, entry.key)


def limited_starts(
    entries: Sequence[Entry],
    after: Snapshot,
    *,
    spare: int = 0,
    usual: Mapping[StepPlace, int] | None = None,
    unrecorded: Mapping[FunctionStep, int] | None = None,
) -> Iterator[Violation]:
    """L3: a body starts once, and once more for each crash that could have cut it off and for each recorded retry.

    Args:
        entries: The ledger.
        after: What the store held in the end.
        spare: How many more executions of any step other faults account for: a stolen lease, a refused commit.
        usual: How often each body starts without a crash; left out, once.
        unrecorded: How often each body starts without a crash, where records do not tell: of an engine that keeps
            only the last attempt, a crash may leave no record of the failed attempts before it. The number of the last
            attempt accounts for as many then: a server also repeats an attempt of which it heard nothing in time, as on
            a machine that was too busy to send heartbeats.
    """
    crashes, retries, once_only = _crashes_in_window(entries), _taken_up(after), set[StepPlace]()
    numbered: dict[StepPlace, int] = {}
    for record in after.records():
        step = (record.run_id, record.key)
        numbered[step] = max(record.attempt, numbered.get(step, 0))
        if record.status == "retrying":
            retries[step] += 1
        elif record.kind == "step" and record.status == "started":
            once_only.add(step)  # only an at-most-once body has such a record
    functions = {(each.run_id, each.key): each.function for each in entries}
    for step, count in Counter((each.run_id, each.key) for each in entries if each.kind == "started").items():
        first = 1 if usual is None else usual.get(step, 0)
        without_crash = first + retries[step]
        if unrecorded is not None:
            without_crash = max(without_crash, unrecorded.get((functions[step], step[1]), 0))
        bound = 1 if step in once_only else without_crash + crashes[step] + spare
        if unrecorded is not None and step not in once_only:
            bound = max(bound, numbered.get(step, 0))
        if count > bound:
            what = f"the body of {step[1]!r} started {times(count)}; {bound} can be accounted for"
            yield Violation("L3", what, ENGINE, step[1])


def most_starts(entries: Iterable[Entry]) -> dict[FunctionStep, int]:
    """How often the body of each step started, in the run of its function where it did so most often."""
    most: dict[FunctionStep, int] = {}
    started = Counter((each.function, each.key, each.run_id) for each in entries if each.kind == "started")
    for (function, key, _), count in started.items():
        most[function, key] = max(count, most.get((function, key), 0))
    return most


def _crashes_in_window(entries: Iterable[Entry]) -> Counter[StepPlace]:
    """How many crashes fell between a start of each step and its commit."""
    crashes: Counter[StepPlace] = Counter()
    window: set[StepPlace] = set()
    for entry in entries:
        step = (entry.run_id, entry.key)
        if entry.kind == "started":
            window.add(step)
        elif entry.kind == "committed":
            window.discard(step)
        elif entry.kind == "crash":
            # A crash ends every body that was running, so each of their windows closes with it.
            crashes.update(window)
            window.clear()
    return crashes


def one_key_per_step(entries: Iterable[Entry]) -> Iterator[Violation]:
    """L9: every execution of a step sees the same idempotency key, and no other step sees it."""
    owner: dict[str, StepPlace] = {}
    keys: dict[StepPlace, str] = {}
    for entry in entries:
        if entry.kind != "started" or not entry.idempotency_key:
            continue
        step = (entry.run_id, entry.key)
        if keys.setdefault(step, entry.idempotency_key) != entry.idempotency_key:
            yield Violation("L9", f"{entry.key!r} was given another idempotency key after the crash", ENGINE, entry.key)
        if owner.setdefault(entry.idempotency_key, step) != step:
            yield Violation("L9", f"{entry.key!r} was given the idempotency key of another step", ENGINE, entry.key)


def distinct_attempts(entries: Iterable[Entry]) -> Iterator[Violation]:
    """L9: no two executions of a step see the same attempt number. Holds of workers that own their run."""
    seen: set[tuple[str, str, int]] = set()
    for entry in entries:
        if entry.kind == "started" and entry.attempt:
            execution = (entry.run_id, entry.key, entry.attempt)
            if execution in seen:
                what = f"two executions of {entry.key!r} were told that they are attempt {entry.attempt}"
                yield Violation("L9", what, ENGINE, entry.key)
            seen.add(execution)


def unseen_bodies(entries: Iterable[Entry], after: Snapshot) -> list[str]:
    """The keys of steps that are recorded although the ledger saw no body start: it proves nothing about them."""
    started = {(entry.run_id, entry.key) for entry in entries if entry.kind == "started"}
    recorded = [record for record in after.records() if record.kind == "step" and record.final]
    return [record.key for record in recorded if (record.run_id, record.key) not in started]
