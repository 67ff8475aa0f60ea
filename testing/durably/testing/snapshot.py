"""All that a store holds at one moment: every run, with its records. What the laws look at before and after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from durably.backends.replay.journal import Journal
from durably.core import Backend
from durably.core.history import History, StepRecord
from durably.core.run_view import RunStatus

__all__ = ["RunLog", "Snapshot"]

MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class RunLog:
    """One run as its store keeps it."""

    id: str
    function: str
    status: RunStatus
    parent: str | None
    history: History


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a store holds at one moment.

    Attributes:
        runs: Its runs by id.
        events: How many events were delivered, or ``None`` where that cannot be seen.
    """

    runs: dict[str, RunLog]
    events: int | None = None

    def records(self) -> Iterator[StepRecord]:
        """The records of every run."""
        for log in self.runs.values():
            yield from log.history

    @classmethod
    def of_journal(cls, journal: Journal) -> Snapshot:
        """Read a journal while no worker is up."""
        journal.open()
        try:
            rows = journal.rows(None, None, MANY)
            logs = [
                RunLog(row.id, row.function, row.status, row.parent, History(journal.records(row.id))) for row in rows
            ]
            # Rows come newest first; oldest first is the order in which the runs were made.
            return cls({log.id: log for log in reversed(logs)}, journal.cursor())
        finally:
            journal.close()

    @classmethod
    async def of_backend(cls, backend: Backend, run_id: str) -> Snapshot:
        """Ask a backend, which may know runs of other experiments too."""
        root = await backend.run(run_id)
        others = [each for each in await backend.runs(limit=MANY) if each.view.parent == run_id]
        logs = [
            RunLog(each.id, each.view.function, each.status, each.view.parent, await each.history())
            for each in [root, *others]
        ]
        return cls({log.id: log for log in logs})
