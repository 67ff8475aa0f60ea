"""The verdict on a program that ran under faults: every law, with the oracle in the place of a run without a crash."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

from durably.backends.memory import MemoryJournal
from durably.testing.fuzz.durable_program import EVENT_NAMES, DurableProgram
from durably.testing.fuzz.faults import FaultKind
from durably.testing.fuzz.oracle import Expected
from durably.testing.fuzz.programs import RETRIES
from durably.testing.fuzz.runner import FaultedRun
from durably.testing.laws import (
    Outcome,
    Violation,
    append_only,
    children_match_their_calls,
    each_event_once,
    ends_once,
    every_run_ends,
    limited_starts,
    no_start_after_commit,
    one_key_per_step,
    same_effects,
    same_event_count,
    same_number_of_children,
    same_outcome,
    settled_once,
)
from durably.testing.laws.violation import ENGINE
from durably.testing.snapshot import Snapshot

__all__ = ["broken_laws", "check_ends", "check_journal"]

REPEATING_FAULTS: tuple[FaultKind, ...] = ("crash", "steal", "refuse")
"""After these a body may have its effect again: its record did not get into the journal."""


def broken_laws(run: FaultedRun) -> list[Violation]:
    """Hold a run that has ended to every law."""
    after, struck = Snapshot.of_journal(run.journal), run.struck
    repeated = any(struck[kind] for kind in REPEATING_FAULTS)
    return [
        *check_ends(run.journal, [run.id], run.expected),
        *same_effects(run.expected.effects, run.program.effects, at_least_once=repeated),
        *(violation for before in run.snapshots for violation in append_only(before, after)),
        *check_journal(after),
        *_events(run.program, run.journal),
        *same_event_count(run.expected.told, len(run.program.told)),
        *same_number_of_children(run.expected.children, after),
        *_bodies(run, after),
    ]


def check_journal(after: Snapshot) -> Iterator[Violation]:
    """What must hold of a journal at any moment."""
    yield from settled_once(after)
    yield from ends_once(after)
    yield from children_match_their_calls(after)


def check_ends(journal: MemoryJournal, run_ids: Collection[str], expected: Expected) -> Iterator[Violation]:
    """What must hold once nothing more will happen: every run has ended, and these came to what they must."""
    yield from every_run_ends(Snapshot.of_journal(journal))
    wanted = Outcome(
        status="failed" if expected.fails else "completed",
        output=None if expected.fails else json.dumps(expected.result),
    )
    for run_id in run_ids:
        row, last = journal.get(run_id), journal.last_record(run_id)
        assert row is not None
        output = None if last.output is None else json.dumps(last.value)
        yield from same_outcome(wanted, Outcome(status=row.status.value, output=output, error=last.error))


def _events(program: DurableProgram, journal: MemoryJournal) -> Iterator[Violation]:
    yield from each_event_once(program.sent, [event_id or "" for event_id, _ in program.told])
    logged = [received.event.id or "" for name in EVENT_NAMES for received in journal.events_since(0, name)]
    yield from each_event_once(set(logged), logged)
    yield from same_event_count(journal.cursor(), len(logged))


def _bodies(run: FaultedRun, after: Snapshot) -> Iterator[Violation]:
    if not run.struck["steal"]:  # a worker whose lease was stolen may start a body that its heir has committed
        yield from no_start_after_commit(run.ledger)
    # A crash of a worker that nobody waited for is not in the ledger. A commit that the journal refused, for good or
    # to a stale worker, costs one more execution, as a crash does.
    unnoted = run.struck["crash"] - len(run.ledger.of("crash"))
    spare = unnoted + run.struck["steal"] + run.struck["refuse"]
    yield from limited_starts(run.ledger.entries, after, spare=spare)
    yield from one_key_per_step(run.ledger)
    yield from one_key_per_step(run.program.ledger)
    for record in after.records():
        if record.kind == "step" and record.status == "failed" and record.error is not None:
            attempts = record.error.get("attempts")
            if attempts != RETRIES + 1:
                what = f"{record.key} was given up after {attempts} attempts, not {RETRIES + 1}"
                yield Violation("L3", what, ENGINE, record.key)
