"""How many runs fit, at a cost that does not grow with the number of those that are live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from durably.core import Backend, RunStatus
from durably.core.run_filter import RunFilters
from durably.core.run_view import LIVE

__all__ = ["RunCounts", "count_runs"]

LIVE_COUNTED = 200
"""Up to how many live runs are counted: where each of them stands is in its records, which must be read."""


@dataclass(frozen=True)
class RunCounts:
    """How many runs fit, by where they stand.

    Attributes:
        numbers: The number of each status.
        partial: Whether there are more live runs than were counted: their numbers are the least there may be.
    """

    numbers: Mapping[RunStatus, int]
    partial: bool = False

    def spelled(self, status: RunStatus) -> str:
        """A number as it is shown: ``12``, or ``12+`` if there may be more."""
        return f"{self.numbers.get(status, 0):,}{'+' if self.partial and not status.final else ''}"

    @property
    def total(self) -> str:
        """The number of all of them, as it is shown."""
        return f"{sum(self.numbers.values()):,}{'+' if self.partial else ''}"

    @property
    def shown(self) -> list[RunStatus]:
        """The statuses that some runs have, or may have."""
        return [each for each in RunStatus if self.numbers.get(each) or (self.partial and not each.final)]


async def count_runs(backend: Backend, filters: RunFilters) -> RunCounts:
    """Count the runs that fit.

    Args:
        backend: The engine.
        filters: Which runs.
    """
    asked = filters.get("status")
    wanted = set(RunStatus) if asked is None else {RunStatus(asked)} if isinstance(asked, str) else set(asked)
    numbers: Counter[RunStatus] = Counter()
    partial = False
    if live := wanted & set(LIVE):
        of_live: RunFilters = {**filters, "status": live}
        page = await backend.runs(**of_live, limit=LIVE_COUNTED)
        numbers.update(run.status for run in page)
        partial = page.next is not None
    if ended := wanted - set(LIVE):
        of_ended: RunFilters = {**filters, "status": ended}
        numbers.update(await backend.count_runs(**of_ended))
    return RunCounts(numbers, partial)
