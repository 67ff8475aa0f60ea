"""Repairing runs by their records: the beginning that a fork takes over, and where it says that it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches

from durably.core.errors import StepNotFoundError
from durably.core.history import StepRecord

__all__ = ["Origin", "cut_after", "forked_from", "prefix_records"]

NEAR = 5
"""So many keys are named when one was not found."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a fork comes from.

    Attributes:
        run_id: The run whose records it began with.
        after: The key of the last step that it took over.
    """

    run_id: str
    after: str

    def to_json(self) -> str:
        """What the first record of a fork keeps, as its input."""
        return json.dumps({"forked_from": asdict(self)}, ensure_ascii=False, separators=(",", ":"))


def forked_from(records: Sequence[StepRecord]) -> Origin | None:
    """Where a run comes from by its first record, or ``None`` if it is no fork."""
    first = records[0] if records else None
    if first is None or first.kind != "run" or not first.input:
        return None
    return Origin(**json.loads(first.input)["forked_from"])


def cut_after(records: Sequence[StepRecord], after: str) -> int:
    """How many of a run's records come before a cut behind a step: up to its last final record.

    Args:
        records: All records of the run.
        after: The key of the step.

    Raises:
        StepNotFoundError: If no step of this key has ended.
    """
    ended = {record.key: record.seq for record in records if record.key and record.final}
    if after not in ended:
        near = get_close_matches(after, ended, n=NEAR, cutoff=0.4) or list(ended)[-NEAR:]
        raise StepNotFoundError(run_id=records[0].run_id, step=after, near=near)
    return ended[after] + 1


def prefix_records(records: Sequence[StepRecord], cut: int, first: StepRecord) -> list[StepRecord]:
    """The records that a fork begins with.

    Args:
        records: Those of the run that it comes from.
        cut: How many of them come before the cut.
        first: The first record of the fork.

    Returns:
        The first record, then those of steps that had ended at the cut and of patches, numbered anew. Of a failure that
        a retry of that run took up again there is nothing: a step ends once.
    """
    before = records[1:cut]
    last = {record.key: record for record in before if record.key}
    taken_up = {
        each.key: each.seq for each in before if each.status == "failed" and last.get(each.key, each) is not each
    }
    kept = [
        record
        for record in before
        if record.kind == "patch"
        or (record.key and last[record.key].final and record.seq > taken_up.get(record.key, 0))
    ]
    return [first, *(replace(each, run_id=first.run_id, seq=seq) for seq, each in enumerate(kept, 1))]
