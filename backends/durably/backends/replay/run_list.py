"""Pages of the runs of a journal, and their numbers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection

from durably.backends.replay.flow.rules import gate_of
from durably.backends.replay.journal import Journal
from durably.backends.replay.outcome import view_of
from durably.core import Event
from durably.core.run_filter import FoundRuns, RunFilter, found_page, read_cursor
from durably.core.run_view import RunStatus, RunView
from durably.core.services import WaitingRun

__all__ = ["find_page", "is_heard", "tally", "waiting_behind"]

PORTION = 50
"""How many runs are looked at in one turn of the event loop."""


async def find_page(journal: Journal, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
    """See :meth:`~durably.core.Backend.find_runs`. A run's place is its number, which grows from run to run."""
    back = before is not None
    place = read_cursor(before if back else after, int)
    found: list[tuple[int, RunView]] = []
    async for each in _matches(journal, where, None if place is None else place[0], back=back):
        found.append(each)
        if len(found) > limit:
            break
    more = len(found) > limit
    page = found[:limit]
    if back:
        page.reverse()
    return found_page([((number,), view) for number, view in page], after=after, back=back, more=more)


async def tally(journal: Journal, where: RunFilter) -> dict[RunStatus, int]:
    """See :meth:`~durably.core.Backend.tally_runs`."""
    counts: Counter[RunStatus] = Counter()
    place, living = 0, journal.living(time.time())
    while (page := journal.count_page(where, place, living)) is not None:
        counts.update(page[0])
        if page[1] is None:
            return dict(counts)
        place = page[1]
        await asyncio.sleep(0)
    counts.update([view.status async for _, view in _matches(journal, where, None, back=False)])
    return dict(counts)


def waiting_behind(journal: Journal, run_id: str, known: Collection[str]) -> list[WaitingRun]:
    """The runs that stand in line for the end of a run, because they have its singleton key.

    Args:
        journal: Where they are.
        run_id: The run whose end they wait for.
        known: Those to leave out.
    """
    row = journal.get(run_id)
    if row is None or row.singleton is None or journal.flow is None:
        return []
    held = journal.flow.list("held", gate_of("singleton", row.function, row.singleton))
    line = [each for each in held if each.id not in known]
    events = (Event.model_validate_json(journal.first_record(each.id).output or "") for each in line)
    return [WaitingRun(each.id, event) for each, event in zip(line, events, strict=True)]


def is_heard(journal: Journal, event_name: str) -> bool:
    """Whether an event starts a function, or a run waits for one of its name; yes where the storage does not tell."""
    if journal.subscribers(event_name) or journal.pruning is None:
        return True
    return any(journal.event_waits(event_name))


async def _matches(
    journal: Journal, where: RunFilter, place: int | None, *, back: bool
) -> AsyncIterator[tuple[int, RunView]]:
    living = journal.living(time.time())
    for count, (number, row) in enumerate(journal.scan(where, place, back=back), 1):
        if count % PORTION == 0:
            await asyncio.sleep(0)
        view = view_of(journal, row, living)
        if where.matches(view):
            yield number, view
