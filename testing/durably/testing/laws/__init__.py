"""The laws: what must hold of runs that were crashed. Every harness is held to these: crash matrix, fuzzing, demo.

Each law is a function over plain data: what the store held (`Snapshot`), what bodies did (`Entry` of a ledger), what
the run came to (`Outcome`). It yields what it found broken. How the data was gathered is not its business.
"""

from __future__ import annotations

from durably.testing.laws.bodies import (
    distinct_attempts,
    limited_starts,
    most_starts,
    no_start_after_commit,
    one_key_per_step,
    unseen_bodies,
)
from durably.testing.laws.records import append_only, ends_once, no_secrets, same_records, settled_once
from durably.testing.laws.results import (
    Outcome,
    change_is_noticed,
    same_effects,
    same_outcome,
    same_value,
    valid_transcript,
)
from durably.testing.laws.runs import (
    children_match_their_calls,
    each_event_once,
    every_run_ends,
    same_event_count,
    same_number_of_children,
    same_started_runs,
)
from durably.testing.laws.violation import BrokenLawError, Violation, raise_violations

__all__ = [
    "LAWS",
    "BrokenLawError",
    "Outcome",
    "Violation",
    "append_only",
    "change_is_noticed",
    "children_match_their_calls",
    "distinct_attempts",
    "each_event_once",
    "ends_once",
    "every_run_ends",
    "limited_starts",
    "most_starts",
    "no_secrets",
    "no_start_after_commit",
    "one_key_per_step",
    "raise_violations",
    "same_effects",
    "same_event_count",
    "same_number_of_children",
    "same_outcome",
    "same_records",
    "same_started_runs",
    "same_value",
    "settled_once",
    "unseen_bodies",
    "valid_transcript",
]

LAWS = {
    "L1": "The result, and the world at the end, equal those of the run without a crash.",
    "L2": "No body starts once its step is recorded.",
    "L3": "A body starts once, and again for each crash that could have interrupted it and for each recorded retry.",
    "L4": "Records do not change, and have no gaps.",
    "L5": "The recovered run recorded the same steps, inputs and values.",
    "L6": "Each tool call has exactly one result, with its own id, in the order of the calls.",
    "L7": "The same number of events was delivered, under the same ids.",
    "L8": "Each call has one child run.",
    "L9": "Every execution of a step sees the same idempotency key, and no other step sees it.",
    "L10": "The caller gets a value of the same type, in the first run and from the records.",
    "L11": "Changed code is detected before any new effect, or gives the same result.",
    "L12": "The run ends once the crashes are over.",
    "L13": "It ends once, and nothing is recorded after that.",
    "L14": "No secret is in a record.",
}
"""Every law, by its name, in one sentence."""
