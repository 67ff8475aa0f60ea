"""L4, L5, L13, L14: what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from durably.core.history import History
from durably.core.run_view import RunStatus
from durably.testing.difference import first_difference
from durably.testing.laws.violation import ENGINE, SECRETS, Violation, explain_repeated_step, times
from durably.testing.ledger import Repeated
from durably.testing.snapshot import Snapshot

__all__ = ["append_only", "ends_once", "no_secrets", "same_records", "settled_once"]


def append_only(before: Snapshot, after: Snapshot) -> Iterator[Violation]:
    """L4: what was recorded at one moment is there at a later one, unchanged."""
    for run_id, log in before.runs.items():
        later = after.runs.get(run_id)
        kept = later.history.records[: len(log.history)] if later else ()
        if kept != log.history.records:
            yield Violation("L4", f"records of run {run_id} were changed or lost by the recovery", ENGINE)


def settled_once(after: Snapshot) -> Iterator[Violation]:
    """L4: records are numbered without gaps, and no step has two final ones."""
    for log in after.runs.values():
        if [record.seq for record in log.history] != list(range(len(log.history))):
            yield Violation("L4", f"the records of run {log.id} are not numbered one after the other", ENGINE)
        for key, count in _settled(log.history).items():
            if count > 1:
                yield Violation("L4", f"step {key!r} of run {log.id} was settled {times(count)}", ENGINE, key)


def _settled(history: History) -> Counter[str]:
    """How often each step was settled; a failure that a retry of the run took up again does not count."""
    settled: Counter[str] = Counter()
    failed: set[str] = set()
    for record in history:
        if record.status == "resumed":
            settled -= Counter(failed)
            failed.clear()
        elif record.final and record.key:
            settled[record.key] += 1
            if record.status == "failed":
                failed.add(record.key)
    return settled


def same_records(expected: History, found: History, repeated: Repeated | None = None) -> Iterator[Violation]:
    """L5: two runs recorded the same steps, inputs and values; times and attempts aside."""
    difference = first_difference(expected, found)
    if difference is not None:
        what = f"the records differ from those without a crash, first at {difference.key or 'the end'!r}"
        yield Violation("L5", what, explain_repeated_step(repeated is not None), difference.key, difference)


def ends_once(after: Snapshot) -> Iterator[Violation]:
    """L13: a run ends once, and nothing is recorded after that, unless it failed and was retried."""
    for log in after.runs.values():
        retried = {record.seq - 1 for record in log.history if record.status == "resumed"}
        own = [place for place, record in enumerate(log.history) if record.kind == "run" and record.final]
        ends = [place for place in own if place not in retried]
        if ends and ends != [len(log.history) - 1]:
            yield Violation("L13", f"run {log.id} has records after its end, or two ends", ENGINE)
        elif not ends and log.status.final and log.status is not RunStatus.SKIPPED:
            yield Violation("L13", f"run {log.id} is {log.status.value}, and no record says so", ENGINE)


def no_secrets(after: Snapshot, secrets: Sequence[str]) -> Iterator[Violation]:
    """L14: no secret is in a record. A violation never shows the secret."""
    for log in after.runs.values() if secrets else ():
        text = log.history.to_jsonl()
        for number, secret in enumerate(secrets):
            if secret in text:
                yield Violation("L14", f"secret number {number + 1} stands in a record of {log.function!r}", SECRETS)
