"""L7, L8, L12: events, the runs they start, child runs, and that every run ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from durably.core.ids import derive_id
from durably.testing.laws.violation import ENGINE, MUST_END, Violation, times
from durably.testing.snapshot import RunLog, Snapshot

__all__ = [
    "children_match_their_calls",
    "each_event_once",
    "every_run_ends",
    "same_event_count",
    "same_number_of_children",
    "same_started_runs",
]


def same_event_count(expected: int | None, found: int | None) -> Iterator[Violation]:
    """L7: as many events were delivered as without a crash; ``None`` where that cannot be seen."""
    if found != expected:
        yield Violation("L7", f"{found} events were delivered instead of {expected}", ENGINE)


def each_event_once(sent: Collection[str], delivered: Iterable[str]) -> Iterator[Violation]:
    """L7: each event that was sent was delivered once, and no other one was.

    Args:
        sent: The ids that the sender was told.
        delivered: The ids that arrived, one for each delivery.
    """
    counts = Counter(delivered)
    for event in sorted({*sent, *counts}):
        if counts[event] != (event in sent):
            yield Violation("L7", f"event {event} was delivered {times(counts[event])}", ENGINE)


def same_started_runs(expected: Iterable[RunLog], found: Iterable[RunLog]) -> Iterator[Violation]:
    """L7: events started the same runs, under the same ids."""
    runs = [sorted(f"{log.function} {log.id}" for log in logs) for logs in (found, expected)]
    if runs[0] != runs[1]:
        yield Violation("L7", f"events started the runs {runs[0]} instead of {runs[1]}", ENGINE)


def children_match_their_calls(after: Snapshot) -> Iterator[Violation]:
    """L8: each child run belongs to one call, and has the id that its step gives it."""
    for log in after.runs.values():
        calls = {derive_id("child", log.id, record.key) for record in log.history if record.kind == "invoke"}
        children = {each.id for each in after.runs.values() if each.parent == log.id}
        if children - calls:
            yield Violation("L8", f"run {log.id} made {len(calls)} calls and has {len(children)} child runs", ENGINE)


def same_number_of_children(expected: int, after: Snapshot) -> Iterator[Violation]:
    """L8: there are as many child runs as without a crash."""
    children = [log for log in after.runs.values() if log.parent]
    if len(children) != expected:
        yield Violation("L8", f"there are {len(children)} child runs instead of {expected}", ENGINE)


def every_run_ends(after: Snapshot, *, live: int = 0) -> Iterator[Violation]:
    """L12: with the crashes over, every run has ended.

    Args:
        after: What the store holds when nothing more will happen.
        live: How many runs are still live without a crash, because they wait for something that never comes.
    """
    waiting = [log.id for log in after.runs.values() if not log.status.final]
    if len(waiting) > live:
        what = f"the runs {', '.join(waiting)} are still live although nothing more will happen"
        yield Violation("L12", what, MUST_END)
