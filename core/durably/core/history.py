"""The history of a run: its step records, in one shape for every backend, and as JSON Lines.

Owns: the shape of a record and its versions. Does not own: where records are kept (the backends), and how a replay
compares them with the code (``replay.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from durably.core.errors import SerializationError
from durably.core.ids import step_id_of

__all__ = ["SCHEMA_VERSION", "History", "Kind", "RecordStatus", "StepRecord"]

SCHEMA_VERSION = 1
"""The version of the shape of records. Raise it when the shape changes, and teach `_upgrade` the old version."""

Kind = Literal["run", "step", "invoke", "send_event", "sleep", "wait_for_event", "patch"]
"""What a record is about: the run itself, a step of this kind (``step`` is a ``step.run``), or an answer of a patch."""

RecordStatus = Literal["started", "retrying", "completed", "failed", "cancelled", "stuck", "resumed"]
"""What a record says of its step or run. ``completed``, ``failed`` and ``cancelled`` are final."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One committed fact about a run. Records are only appended, never changed.

    The first record of a run has kind ``run`` and status ``started``. The last record of a run that has ended has kind
    ``run`` and status ``completed``, ``failed`` or ``cancelled``. A failed run that is retried continues after a record
    of kind ``run`` and status ``resumed``.

    Attributes:
        run_id: The run.
        seq: The record's position in the run, from 0.
        key: The step key. It is empty for a record of the run itself, and for a patch.
        kind: What the record is about.
        status: ``started`` (an invoke, a sleep, a wait or an at-most-once body has begun), ``retrying`` (an attempt
            failed and another one follows), ``completed``, ``failed``, or, of the run only, ``cancelled``, ``stuck``
            (its code does not fit, and it waits for code that does) or ``resumed`` (it had failed and was retried).
        attempt: The number of the attempt, from 1.
        name: The name of the body, the function, the event or the patch.
        input: The arguments as JSON text, or their digest. A replay compares it. In the first record of a fork: its
            origin.
        output: The value as JSON text, or ``None``.
        error: The error as JSON data, or ``None``.
        due: When the next thing happens (a wake-up, a timeout, the next attempt), in seconds since 1970, or ``None``.
        at: When the record was committed, in seconds since 1970.
        took: Seconds from the attempt's start to its commit.
        v: The version of this format.
    """

    run_id: str
    seq: int
    key: str
    kind: Kind
    status: RecordStatus
    attempt: int = 1
    name: str = ""
    input: str = ""
    output: str | None = None
    error: dict[str, Any] | None = None
    due: float | None = None
    at: float = 0.0
    took: float = 0.0
    v: int = SCHEMA_VERSION

    @property
    def final(self) -> bool:
        """Whether this record ends its step or its run."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def value(self) -> Any:
        """The output as JSON data."""
        return None if self.output is None else json.loads(self.output)

    @property
    def step_id(self) -> str:
        """The step id that the caller gave: the key without its branch and number."""
        return step_id_of(self.key)

    def to_json(self) -> str:
        """Return one line of JSON. Fields that hold their default are left out."""
        data = {name: value for name, value in asdict(self).items() if value != _DEFAULTS.get(name, _MISSING)}
        return json.dumps({"v": self.v, **data}, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> StepRecord:
        """Read a record from one line of JSON.

        Raises:
            SerializationError: If it is not a record, or if a newer version of this library wrote it.
        """
        try:
            data = json.loads(line)
            return cls(**_upgrade(data))
        except (ValueError, TypeError) as error:
            raise SerializationError(f"not a step record: {error}: {line[:200]}", step="") from error


_MISSING = object()
_DEFAULTS = {field.name: field.default for field in fields(StepRecord)}


def _upgrade(data: dict[str, Any]) -> dict[str, Any]:
    version = data.get("v")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise SerializationError(
            f"the record has schema version {version!r}, this library reads 1 to {SCHEMA_VERSION}: upgrade durably",
            step=str(data.get("key", "")),
        )
    return data


class History(Sequence[StepRecord]):
    """The records of one run, in order.

    Args:
        records: All records of the run, from ``seq`` 0.
    """

    def __init__(self, records: Iterable[StepRecord]) -> None:
        self.records = tuple(records)

    @property
    def run_id(self) -> str:
        """The run these records belong to."""
        return self.records[0].run_id

    @property
    def function(self) -> str:
        """The id of the function that ran."""
        return self.records[0].name

    @property
    def status(self) -> RecordStatus:
        """``started`` while the run is live, or else how it ended."""
        last = self.records[-1]
        return last.status if last.kind == "run" and last.final else "started"

    def steps(self) -> list[StepRecord]:
        """Return the final records of steps, in the order in which they were committed.

        A failed step that a retry of the run repeated has a record for each of its ends.
        """
        return [record for record in self.records if record.final and record.key]

    def to_jsonl(self) -> str:
        """Return JSON Lines, one line for each record."""
        return "".join(record.to_json() + "\n" for record in self.records)

    @classmethod
    def from_jsonl(cls, text: str) -> History:
        """Read the text that :meth:`to_jsonl` returned.

        Raises:
            SerializationError: If a line is not a record, or if records are missing or out of order.
        """
        # splitlines() would also split at U+2028 and others, which JSON text may hold.
        history = cls(StepRecord.from_json(line) for line in text.split("\n") if line.strip())
        if not history.records:
            raise SerializationError("an empty history: a run has at least its first record", step="")
        for position, record in enumerate(history.records):
            if record.seq != position or record.run_id != history.run_id:
                raise SerializationError(
                    f"record {position} of run {history.run_id} is missing: found number {record.seq} of run "
                    f"{record.run_id} in its place",
                    step=record.key,
                )
        return history

    def save(self, path: str | Path) -> None:
        """Write JSON Lines to a file. :meth:`load` reads it."""
        Path(path).write_text(self.to_jsonl(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read the file that :meth:`save` wrote.

        Raises:
            SerializationError: If it is another file.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SerializationError(f"not the records of a run: {error}", step="") from error
        return cls.from_jsonl(text)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[StepRecord]:
        return iter(self.records)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.records == other.records

    def __hash__(self) -> int:
        return hash(self.run_id)
