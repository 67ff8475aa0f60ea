"""How a journal in memory forgets finished runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from durably.backends.replay.journal_types import Received, RunRow
from durably.backends.replay.pruning import NEEDS_PARENT, EndedRun, LoggedEvent, OpenWait, PrunableStorage
from durably.core.history import StepRecord

__all__ = ["MemoryPruning"]


class MemoryPruning(PrunableStorage):
    """Forgets the finished runs of a journal in memory, all that is to go at once.

    Args:
        runs: The runs by their ids, in the order of their starts.
        records: The records of each.
        children: The ids of the runs that each called.
        events: The log of events by their places, in order.
        event_ids: These events by their ids.
        forget: Forgets what else the journal holds of a run: its place, and the pieces of its streamed answers.
    """

    def __init__(
        self,
        runs: dict[str, RunRow],
        records: dict[str, list[StepRecord]],
        children: dict[str, list[str]],
        events: dict[int, Received],
        event_ids: dict[str, Received],
        forget: Callable[[str], None],
    ) -> None:
        self._runs = runs
        self._records = records
        self._children = children
        self._events = events
        self._event_ids = event_ids
        self._forget = forget
        self._forgotten: list[list[StepRecord]] = []

    def functions(self) -> Sequence[str]:
        return sorted({row.function for row in self._runs.values() if row.status.final})

    def count_ended(self, function: str) -> int:
        return sum(1 for _ in self.ended_runs(function))

    def ended_runs(self, function: str) -> Iterator[EndedRun]:
        for row in list(self._runs.values()):
            if row.function == function and row.status.final:
                records = self._records.get(row.id)
                yield EndedRun(row.id, row.created_at, records[-1].at if records else row.created_at)

    def forget_runs(self, run_ids: Sequence[str]) -> int:
        free = [run_id for run_id in run_ids if run_id in self._runs and not self.is_needed(self._runs[run_id])]
        for run_id in free:
            row = self._runs.pop(run_id)
            self._forgotten.append(self._records.pop(run_id))
            self._children.pop(run_id, None)
            self._forget(run_id)
            if row.parent in self._children:
                self._children[row.parent].remove(run_id)
        return len(free)

    def is_needed(self, row: RunRow) -> bool:
        """Whether a run is live, or its parent may still ask for it."""
        parent = None if row.parent is None else self._runs.get(row.parent)
        return not row.status.final or (parent is not None and parent.status in NEEDS_PARENT)

    def forget_records(self, limit: int) -> int:
        gone = sum(map(len, self._forgotten))
        self._forgotten.clear()
        return gone

    def open_waits(self) -> Iterator[Sequence[OpenWait]]:
        for row in list(self._runs.values()):
            if row.status in NEEDS_PARENT:
                yield list(_open_waits(self._records[row.id]))

    def newest_event(self) -> int:
        return next(reversed(self._events), 0)

    def events(self, seq: int, limit: int) -> Sequence[LoggedEvent]:
        later = (each for each in self._events.values() if each.seq > seq)
        return [LoggedEvent(each.seq, each.event.name, each.at) for each, _ in zip(later, range(limit), strict=False)]

    def forget_events(self, seqs: Sequence[int]) -> int:
        gone = [each for seq in seqs if (each := self._events.pop(seq, None)) is not None]
        for each in gone:
            self._event_ids.pop(each.event.id or "", None)
        return len(gone)

    def shrink(self, pages: int) -> bool:
        return False


def _open_waits(records: Sequence[StepRecord]) -> Iterator[OpenWait]:
    settled = {record.key for record in records if record.final}
    for record in records:
        if record.kind == "wait_for_event" and record.status == "started" and record.key not in settled:
            yield OpenWait(record.name, int(record.output or 0))
