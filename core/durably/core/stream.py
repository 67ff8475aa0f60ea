"""The stream of a run: what happened in it, in one order with offsets, from its records and the pieces of its answers.

Whoever reads the records and the pieces again comes to the same order: another process, and the same one later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from durably.core.deltas import StoredDelta
from durably.core.history import StepRecord
from durably.core.observer import AttemptFailed, Happening, StepBegan, StepEnded, StreamedDelta, happenings

__all__ = ["StreamItem", "StreamReader", "offset_behind"]

PLACE_BITS = 28
RECORD_BIT = 1 << (PLACE_BITS - 1)
"""An offset is a place among the records, in the upper bits, and below it a number: of a piece, or, with this bit set,
of something that the record at this place says. So a piece stands before the record that came after it. Offsets are
less than 2**53, and so are the same numbers in JavaScript."""


def offset_behind(records: int) -> int:
    """The offset from which on a stream tells what comes behind the first so many records of a run."""
    return records << PLACE_BITS


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One thing that happened in a run.

    Attributes:
        offset: Its place in the stream: higher than that of everything before. To go on behind it, ask for
            ``from_offset=offset + 1``.
        event: What happened.
        abandoned: Whether it is a piece of an answer that was given up: its attempt failed or was cut off. While the
            attempt goes on, nobody knows; then the next ``StepBegan`` or ``AttemptFailed`` of the step says so.
    """

    offset: int
    event: Happening
    abandoned: bool = False


class StreamReader:
    """Puts records and pieces into the order of a stream, as they come.

    Args:
        run_id: The run.
        function: The id of its function.

    Attributes:
        records: How many records it has read.
        deltas: How many pieces it has read.
        ended: Whether the last record ends the run.
    """

    def __init__(self, run_id: str, function: str) -> None:
        self.records = 0
        self.deltas = 0
        self.ended = False
        self._run_id = run_id
        self._function = function
        self._waiting: list[StoredDelta] = []
        self._began: set[tuple[str, int]] = set()
        self._newest: dict[str, int] = {}
        self._completed: dict[str, int] = {}
        self._failed: set[tuple[str, int]] = set()

    def read(self, records: Sequence[StepRecord], deltas: Sequence[StoredDelta]) -> list[StreamItem]:
        """The next items of the stream.

        Args:
            records: The records since the last call.
            deltas: The pieces since the last call. They must have been read after the records.
        """
        self._note(records, deltas)
        self._waiting += deltas
        self.deltas += len(deltas)
        items: list[StreamItem] = []
        for record in records:
            items += self._before(record)
            items += self._of(record)
            self.records += 1
        items += self._take(lambda piece: piece.place is None or piece.place <= self.records)
        return items

    def _note(self, records: Sequence[StepRecord], deltas: Sequence[StoredDelta]) -> None:
        """Note how attempts ended, before any piece of them is shown."""
        for record in records:
            key = record.key
            if not key:
                self.ended = record.final
                continue
            self._newest[key] = max(record.attempt, self._newest.get(key, 0))
            if record.status == "completed":
                self._completed[key] = record.attempt
            elif record.status in ("retrying", "failed"):
                self._failed.add((key, record.attempt))
        for piece in deltas:
            self._newest[piece.delta.step] = max(piece.delta.attempt, self._newest.get(piece.delta.step, 0))

    def _before(self, record: StepRecord) -> Iterator[StreamItem]:
        """The pieces that came before a record: by their place, or where it is not known, those of its own attempt."""
        own = [
            index
            for index, piece in enumerate(self._waiting)
            if piece.place is None and piece.delta.step == record.key and piece.delta.attempt <= record.attempt
        ]
        last = self._waiting[own[-1]].number if own else -1
        return self._take(lambda piece: piece.number <= last if piece.place is None else piece.place <= record.seq)

    def _take(self, fits: Callable[[StoredDelta], bool]) -> Iterator[StreamItem]:
        """The waiting pieces that fit, as items."""
        taken = [piece for piece in self._waiting if fits(piece)]
        self._waiting = [piece for piece in self._waiting if not fits(piece)]
        for piece in taken:
            delta = piece.delta.model_copy(update={"function": self._function})
            place = self.records if piece.place is None else piece.place
            offset = (place << PLACE_BITS) + 2 * piece.number
            if (delta.step, delta.attempt) not in self._began:
                yield StreamItem(offset, self._begin(delta.step, delta.attempt, delta.at))
            yield StreamItem(offset + 1, delta, self._is_abandoned(delta))

    def _of(self, record: StepRecord) -> Iterator[StreamItem]:
        """What a record says, and before it the begin of its attempt, if nothing has told of that."""
        offset = (record.seq << PLACE_BITS) + RECORD_BIT
        for event in happenings(record, self._function):
            if isinstance(event, StepBegan):
                self._began.add((event.step, event.attempt))
            elif isinstance(event, StepEnded | AttemptFailed) and not self._has_begun(event):
                yield StreamItem(offset, self._begin(event.step, event.attempt, record.at - record.took, record))
                offset += 1
            yield StreamItem(offset, event)
            offset += 1

    def _has_begun(self, event: StepEnded | AttemptFailed) -> bool:
        # An attempt of the function's own code has no step.
        return not event.step or (event.step, event.attempt) in self._began

    def _begin(self, step: str, attempt: int, at: float, record: StepRecord | None = None) -> StepBegan:
        self._began.add((step, attempt))
        return StepBegan(
            run_id=self._run_id,
            function=self._function,
            step=step,
            kind="step" if record is None else record.kind,
            attempt=attempt,
            at=at,
            name="" if record is None else record.name,
            failures=len([key for key, number in self._failed if key == step and number < attempt]),
        )

    def _is_abandoned(self, delta: StreamedDelta) -> bool:
        step, attempt = delta.step, delta.attempt
        if (step, attempt) in self._failed or attempt < self._newest[step]:
            return True
        return self.ended and self._completed.get(step) != attempt
