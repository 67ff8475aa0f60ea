"""The verdict on a program that ran under faults: every law, with the oracle in the place of a run without a crash."""

from __future__ import annotations

from collections.abc import Iterator

from durably.testing.fuzz.faults import FaultKind
from durably.testing.fuzz.program_laws import check_program, check_stream
from durably.testing.fuzz.programs import RETRIES
from durably.testing.fuzz.runner import FaultedRun
from durably.testing.laws import (
    Violation,
    append_only,
    each_event_once,
    limited_starts,
    no_start_after_commit,
    one_key_per_step,
    same_event_count,
)
from durably.testing.laws.violation import ENGINE
from durably.testing.snapshot import Snapshot

__all__ = ["broken_laws"]

REPEATING_FAULTS: tuple[FaultKind, ...] = ("crash", "steal", "refuse")
"""After these a body may have its effect again: its record did not get into the journal."""


async def broken_laws(run: FaultedRun) -> list[Violation]:
    """Hold a run that has ended to every law."""
    after, struck = run.store.snapshot(), run.struck
    parts = run.operator.parts(after.runs[run.id].history)
    pieces = {run_id: await run.store.pieces(run_id) for run_id in after.runs}
    repeated = any(struck[kind] for kind in REPEATING_FAULTS)
    return [
        *check_program(after, run.program, parts, repeated=repeated, owned=not struck["steal"]),
        *(violation for before in run.snapshots for violation in append_only(before, after)),
        *(each for log in after.runs.values() for each in check_stream(log, pieces[log.id])),
        *_events(run, after),
        *_bodies(run, after),
    ]


def _events(run: FaultedRun, after: Snapshot) -> Iterator[Violation]:
    logged = run.store.event_ids(run.program.event_names)
    yield from each_event_once(set(logged), logged)
    yield from same_event_count(after.events, len(logged))


def _bodies(run: FaultedRun, after: Snapshot) -> Iterator[Violation]:
    if not run.struck["steal"]:  # a worker whose lease was stolen may start a body that its heir has committed
        yield from no_start_after_commit(run.ledger, after)
    # A crash of a worker that nobody waited for is not in the ledger. A commit that the journal refused, for good or
    # to a stale worker, costs one more execution, as a crash does.
    unnoted = run.struck["crash"] - len(run.ledger.of("crash"))
    # A worker that stops where a body is about to begin leaves it to the next: its point was passed, no more.
    spare = unnoted + run.struck["steal"] + run.struck["refuse"] + run.struck["stop"]
    yield from limited_starts(run.ledger.entries, after, spare=spare)
    yield from one_key_per_step(run.ledger)
    yield from one_key_per_step(run.program.ledger)
    for record in after.records():
        if record.kind == "step" and record.status == "failed" and record.error is not None:
            attempts = record.error.get("attempts")
            if attempts != RETRIES + 1:
                what = f"{record.key} was given up after {attempts} attempts, not {RETRIES + 1}"
                yield Violation("L3", what, ENGINE, record.key)
