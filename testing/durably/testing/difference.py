"""Two histories side by side: what must be equal in them, and where they first differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durably.core.history import History, StepRecord

__all__ = ["Difference", "describe", "first_difference", "same_error", "same_text", "settled"]

# Ids of runs, events and effects are derived from the run's id, which differs between runs on a shared server.
_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"#[0-9a-f]+ of (\d+) characters")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two histories part.

    Attributes:
        key: The step key on the first side; of the second, if the first has ended. Empty at the end of the run.
        expected: What the first side recorded there.
        found: What the second side recorded there.
        field: What differs: ``step``, ``input``, ``output``, ``error`` or ``status``.
    """

    key: str
    expected: str
    found: str
    field: str = "step"


def settled(history: History) -> list[StepRecord]:
    """The final records in the order of the code: branches of a ``gather`` one after the other, not by the clock."""
    final = [record for record in history if record.final]
    place = {record.key: number for number, record in enumerate(final)}
    return sorted(final, key=lambda record: _order(record, place))


def _order(record: StepRecord, place: dict[str, int]) -> tuple[object, ...]:
    """Sorts a branch's records where its gather first shows, by branch number, then in their own order."""
    branch, slash, _ = record.key.rpartition("/")
    if not slash:
        return (place[record.key], "", 0)
    outermost = record.key.partition("[")[0]
    first = min(number for key, number in place.items() if key.startswith(f"{outermost}["))
    # Branch 10 comes after branch 9: numbers are compared as numbers.
    padded = re.sub(r"\[(\d+)\]", lambda found: f"[{int(found[1]):06}]", branch)
    return (first, padded, place[record.key])


def first_difference(expected: History, found: History) -> Difference | None:
    """The first settled step in which two histories of the same run differ, or ``None``.

    Times, attempts and numbers do not count, and generated ids only by their place.
    """
    left, right = settled(expected), settled(found)
    for one, other in zip(left, right, strict=False):
        field = _differs(one, other)
        if field:
            return Difference(one.key, describe(one), describe(other), field)
    if len(left) == len(right):
        return None
    longer = left if len(left) > len(right) else right
    extra = longer[min(len(left), len(right))]
    sides = (describe(extra), "nothing") if longer is left else ("nothing", describe(extra))
    return Difference(extra.key, *sides)


def _differs(one: StepRecord, other: StepRecord) -> str:
    if one is other:  # two lives on one journal share what was recorded before them
        return ""
    if (one.key, one.kind) != (other.key, other.kind):
        return "step"
    if one.status != other.status:
        return "status"
    alike = same_text if one.run_id == other.run_id else _same_text_or_length
    if not alike(one.input, other.input):
        return "input"
    if not same_text(one.output, other.output):
        return "output"
    return "" if same_error(one.error, other.error) else "error"


def _same_text_or_length(one: str, other: str) -> bool:
    """Whether two inputs of runs of different ids are equal. A long one is a digest, which an id in it changes too."""
    return same_text(*(_DIGEST.sub(r"\1 characters", each) for each in (one, other)))


def same_error(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two errors say the same. The way that a replay took to raise one may be another."""
    return one == other or same_text(*(each and {**each, "traceback": ""} for each in (one, other)))


def same_text(one: object, other: object) -> bool:
    """Whether two texts are equal but for generated ids, which differ between runs of different ids."""
    return one == other or _ID.sub("<id>", str(one)) == _ID.sub("<id>", str(other))


def describe(record: StepRecord, width: int = 160) -> str:
    """A record in one line."""
    parts = [f"{record.kind} {record.key!r}" if record.key else f"the run's {record.name}", record.status]
    if record.input:
        parts.append(f"input {record.input}")
    if record.output is not None:
        parts.append(f"output {record.output}")
    if record.error is not None:
        parts.append(f"error {record.error.get('type')}: {record.error.get('message', '')}")
    line = ", ".join(parts)
    return line if len(line) <= width else line[: width - 1] + "…"
