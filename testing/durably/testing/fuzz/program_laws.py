"""What must hold of a program's runs once nothing more will happen, on any engine: the oracle's word, law by law."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from durably.core.deltas import StoredDelta
from durably.core.history import History
from durably.core.stream import StreamItem, StreamReader
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.oracle import MAIN, Expected
from durably.testing.laws import (
    Outcome,
    Violation,
    children_match_their_calls,
    each_event_once,
    ends_once,
    every_run_ends,
    same_effects,
    same_event_count,
    same_number_of_children,
    same_outcome,
    settled_once,
)
from durably.testing.laws.violation import ENGINE
from durably.testing.snapshot import RunLog, Snapshot

__all__ = ["Part", "check_program", "check_snapshot", "check_stream"]

LAST = {"cancel": {"completed", "cancelled"}, "skip": {"completed", "skipped"}, "queue": {"completed"}}
"""How the runs of a singleton may end, by its mode."""


@dataclass(frozen=True)
class Part:
    """Runs of a program's own function, and what each of them must come to.

    Attributes:
        run_ids: The runs.
        expected: What each must come to.
    """

    run_ids: Collection[str]
    expected: Expected


def check_snapshot(after: Snapshot) -> Iterator[Violation]:
    """What must hold of a store at any moment."""
    yield from settled_once(after)
    yield from ends_once(after)
    yield from children_match_their_calls(after)


def check_program(
    after: Snapshot, program: DurableProgram, parts: Sequence[Part], *, repeated: bool, owned: bool = True
) -> Iterator[Violation]:
    """Hold the runs of a program to the oracle.

    Args:
        after: What the store holds.
        program: The program, with the world its effects went to.
        parts: What its runs must come to.
        repeated: Whether something struck after which an effect may be there once more.
        owned: Whether every worker owned the runs it worked at.
    """
    yield from every_run_ends(after)
    yield from check_snapshot(after)
    for part in parts:
        for run_id in part.run_ids:
            yield from check_end(after.runs[run_id], part.expected)
    yield from same_effects(_sum(parts, "effects"), program.effects, at_least_once=repeated)
    yield from each_event_once(program.sent, [event_id for event_id, _ in program.told])
    yield from same_event_count(sum(part.expected.told * len(part.run_ids) for part in parts), len(program.told))
    yield from same_number_of_children(sum(part.expected.children * len(part.run_ids) for part in parts), after)
    yield from _same_runs(_sum(parts, "runs"), after)
    yield from _same_order(parts, after)
    yield from check_rivals(_sum(parts, "rivals"), program, after, owned=owned)
    yield from check_ticks(program, after)


def check_end(log: RunLog, expected: Expected) -> Iterator[Violation]:
    """L1: a run of the program came to what it must."""
    last = log.history.records[-1]
    wanted = Outcome(
        status="failed" if expected.fails else "completed",
        output=None if expected.fails else json.dumps(expected.result),
    )
    output = None if last.output is None else json.dumps(last.value)
    yield from same_outcome(wanted, Outcome(status=log.status.value, output=output, error=last.error))


def _sum(parts: Sequence[Part], field: str) -> Counter[Any]:
    """What is expected of all runs together."""
    counts: list[Counter[Any]] = [getattr(part.expected, field) for part in parts for _ in part.run_ids]
    return reduce(lambda all_of, one: all_of + one, counts, Counter[Any]())


def _same_runs(expected: Mapping[str, int], after: Snapshot) -> Iterator[Violation]:
    """L7, L8: each function has as many runs as it was called and started."""
    found = Counter(log.function for log in after.runs.values())
    for function in expected.keys() | found.keys():
        if not function.startswith(("rival-", "clockwork-")) and expected.get(function, 0) != found[function]:
            what = f"function {function!r} has {found[function]} runs instead of {expected.get(function, 0)}"
            yield Violation("L7", what, ENGINE)


def _same_order(parts: Sequence[Part], after: Snapshot) -> Iterator[Violation]:
    """L5: each scope of a run recorded the steps that its code asks for, in their order."""
    for part in parts:
        for run_id in part.run_ids:
            yield from _same_steps(after.runs[run_id], part.expected.order[MAIN])
    first = parts[0].expected.order if parts else {}
    for log in after.runs.values():
        if log.function != MAIN and log.function in first and len(parts) == 1:
            yield from _same_steps(log, first[log.function])


def _same_steps(log: RunLog, expected: Mapping[str, Sequence[str]]) -> Iterator[Violation]:
    found = _scopes(log.history)
    for scope in expected.keys() | found.keys():
        if list(expected.get(scope, ())) != found[scope]:
            what = f"run {log.id} recorded {found[scope]} in {scope or 'its code'!r}, not {expected.get(scope)}"
            yield Violation("L5", what, ENGINE)


def _scopes(history: History) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key in dict.fromkeys(record.key for record in history.steps()):
        scope, slash, _ = key.rpartition("/")
        found[scope + slash].append(key)
    return found


def check_rivals(
    expected: Mapping[Any, int], program: DurableProgram, after: Snapshot, *, owned: bool
) -> Iterator[Violation]:
    """L7: of the runs of a singleton key one was live at a time, and each ended as the mode says.

    Args:
        expected: How many events each key got, by mode and key.
        program: The program.
        after: What the store holds.
        owned: Whether every worker owned the runs it worked at: a stale one may note what nobody asked it to.
    """
    keys: dict[str, str] = {note.run_id: note.name for note in program.world.of("entered")}
    for mode, endings in LAST.items():
        logs = [log for log in after.runs.values() if log.function == f"rival-{mode}"]
        wanted = sum(count for (of, _), count in expected.items() if of == mode)
        # A run that is skipped leaves no trace on some engines.
        if len(logs) > wanted or (mode != "skip" and len(logs) < wanted):
            yield Violation("L7", f"{wanted} events made {len(logs)} runs of the singleton {mode!r}", ENGINE)
        for log in logs:
            if log.status.value not in endings:
                yield Violation("L7", f"a run of the singleton {mode!r} ended as {log.status.value}", ENGINE)
        done = {keys.get(log.id) for log in logs if log.status.value == "completed"}
        for of, key in expected:
            if of == mode and f"{mode}/{key}" not in done:
                yield Violation("L7", f"no run of the key {key} of the singleton {mode!r} has completed", ENGINE)
    if owned:
        yield from _one_at_a_time(program)


def _one_at_a_time(program: DurableProgram) -> Iterator[Violation]:
    holders: dict[str, str | None] = {}
    for note in program.world.of("entered", "left"):
        if note.name.startswith("cancel/"):
            continue  # the older run is cancelled while it holds the key
        holder = holders.get(note.name)
        if note.kind == "entered" and holder not in (None, note.run_id):
            yield Violation("L7", f"run {note.run_id} began while {holder} held the key {note.name}", ENGINE)
        holders[note.name] = note.run_id if note.kind == "entered" else None


def check_ticks(program: DurableProgram, after: Snapshot) -> Iterator[Violation]:
    """L7: each time of a cron had one run, and each run has a time."""
    runs: dict[str, set[str]] = defaultdict(set)
    for note in program.world.of("tick"):
        runs[note.name].add(note.run_id)
    for moment, found in runs.items():
        if len(found) > 1:
            yield Violation("L7", f"the time {moment} of a cron had the runs {sorted(found)}", ENGINE)
    begun = {log.id for log in after.runs.values() if log.function.startswith("clockwork-")}
    if begun != (timed := set[str]().union(*runs.values())):
        yield Violation("L7", f"crons began the runs {sorted(begun)}, and {sorted(timed)} stand for a time", ENGINE)


def check_stream(log: RunLog, pieces: Sequence[StoredDelta]) -> Iterator[Violation]:
    """L5: whoever reads the stream of a run at once, or piece by piece while it goes on, reads the same.

    Args:
        log: The run, which has ended.
        pieces: What is kept of its streamed answers.
    """
    records = log.history.records
    whole = StreamReader(log.id, log.function).read(records, pieces)
    reader, live = StreamReader(log.id, log.function), list[StreamItem]()
    for place in range(len(records) + 1):
        come = [piece for piece in pieces if (piece.place or 0) == place]
        live += reader.read(records[max(0, place - 1) : place], come)
    offsets = [item.offset for item in whole]
    if offsets != sorted(set(offsets)):
        yield Violation("L5", f"the stream of run {log.id} has offsets out of order: {offsets}", ENGINE)
    known = all(piece.place is not None for piece in pieces)  # else nobody can tell when a piece came
    if known and [(item.offset, item.event) for item in live] != [(item.offset, item.event) for item in whole]:
        yield Violation("L5", f"the stream of run {log.id} was another one while the run went on", ENGINE)
