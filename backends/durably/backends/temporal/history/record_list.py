"""The records of a run while they are put together from its history, and the steps that have not come to their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.core.history import Kind, RecordStatus, StepRecord

__all__ = ["RecordList"]


class RecordList:
    """Records in the order in which the history tells of them, numbered as they come.

    Args:
        run_id: The run.

    Attributes:
        records: What it has come to so far.
        earlier: Temporal's id of the history before this one, as long as its records have not been taken over.
    """

    def __init__(self, run_id: str) -> None:
        self.records: list[StepRecord] = []
        self.earlier = ""
        self._run_id = run_id
        self._begun: dict[str, StepRecord] = {}
        self._failed: dict[str, Any] | None = None

    def new(self, key: str, kind: Kind, status: RecordStatus, at: float, **fields: Any) -> StepRecord:
        """A record that is not in the list yet."""
        return StepRecord(self._run_id, len(self.records), key, kind, status, at=at, **fields)

    def append(self, record: StepRecord) -> None:
        """Put a record into the list, as its next one."""
        self.records.append(replace(record, seq=len(self.records)))

    def take_over(self, records: Sequence[StepRecord], more: bool) -> None:
        """Put records of the earlier history into the list; ``more`` of them are to come."""
        if records and records[0].kind == "run" and records[0].seq == 0:
            self.records.clear()  # the run began in that history
        for record in records:
            self.append(record)
        if not more:
            self.earlier = ""

    # -- steps that are under way

    def begin(self, place: str, record: StepRecord) -> None:
        """A step has begun.

        Args:
            place: How the event of its end will name it.
            record: Its first record.
        """
        self._begun[place] = record

    def end(self, place: str) -> StepRecord | None:
        """The first record of a step whose end has come, or ``None`` if it is no step."""
        return self._begun.pop(place, None)

    def began(self, place: str) -> StepRecord | None:
        """The first record of a step whose end has not come, or ``None`` if it is no step."""
        return self._begun.get(place)

    def under_way(self) -> list[StepRecord]:
        """The first records of steps that are under way, in the order in which they began."""
        return [record for record in self._begun.values() if not record.key.startswith("durably:")]

    def settle(self, begun: StepRecord, at: float, *, error: dict[str, Any] | None = None, **fields: Any) -> None:
        """Add what a step came to."""
        status: RecordStatus = "completed" if error is None else "failed"
        name = begun.name if begun.kind != "step" else ""
        fields = {"input": begun.input, "name": name, "took": max(0.0, at - begun.at), "error": error, **fields}
        self.append(self.new(begun.key, begun.kind, status, at, **fields))

    # -- the run itself

    def begin_run(
        self, function: str, event: str, at: float, earlier: str, failed: dict[str, Any] | None = None, source: str = ""
    ) -> None:
        """Add the run's first record.

        Args:
            function: The id of its function.
            event: What started it, as JSON text.
            at: When it began.
            earlier: Temporal's id of the history before this one, or an empty text.
            failed: The error of the attempt that ended with that history, as JSON data.
            source: Where it comes from, if it is a fork, as JSON text.
        """
        self.earlier = earlier
        self._failed = failed
        self.append(self.new("", "run", "started", at, name=function, input=source, output=event))

    def retry_run(self, attempt: int, error: dict[str, Any], due: float, at: float) -> None:
        """Add that the code itself failed and runs again at a moment."""
        name = self.records[0].name
        error = self._failed or error  # the summary of the timer has room for the beginning of its text
        self.append(self.new("", "run", "retrying", at, name=name, attempt=attempt, error=error, due=due))

    def end_run(self, status: RecordStatus, at: float, **fields: Any) -> None:
        """Add how the run ended."""
        first = self.records[0]
        self.append(self.new("", "run", status, at, name=first.name, took=at - first.at, **fields))
