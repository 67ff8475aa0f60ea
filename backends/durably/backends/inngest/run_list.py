"""Lists of runs. Inngest cannot filter by what durably knows of a run, so all of its runs are looked through."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Container

from durably.backends.inngest.server.runs import ServerRuns
from durably.core.errors import UnsupportedFeatureError
from durably.core.run_filter import FoundRuns, RunFilter, found_page, read_cursor
from durably.core.run_view import RunStatus, RunView

__all__ = ["RunLister"]

UNTOLD = frozenset({RunStatus.WAITING, RunStatus.RETRYING})
"""What Inngest does not tell: all live runs are called running."""

Place = tuple[float, str]
"""When a run was queued, in seconds since 1970, and Inngest's id of it."""


class RunLister:
    """Lists the runs of an app's functions.

    Args:
        runs: The runs of the environment.
        functions: The ids of the app's functions.
    """

    def __init__(self, runs: ServerRuns, functions: Container[str]) -> None:
        self._runs = runs
        self._functions = functions

    async def page(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        """See :meth:`~durably.core.Backend.find_runs`."""
        _check(where)
        back = before is not None
        given = read_cursor(before if back else after, float, str)
        place = None if given is None else (float(given[0]), str(given[1]))
        found: list[tuple[Place, RunView]] = []
        async for at, view in self._matches(where, None if back else place):
            if back and place is not None and at <= place:
                break
            found.append((at, view))
            if len(found) > limit and not back:
                break
        more = len(found) > limit
        page = found[-limit:] if back else found[:limit]
        return found_page(page, after=after, back=back, more=more)

    async def tally(self, where: RunFilter) -> dict[RunStatus, int]:
        """See :meth:`~durably.core.Backend.tally_runs`."""
        _check(where)
        counts: Counter[RunStatus] = Counter()
        async for _, view in self._matches(where, None):
            counts[view.status] += 1
        return dict(counts)

    async def _matches(self, where: RunFilter, place: Place | None) -> AsyncIterator[tuple[Place, RunView]]:
        # What only a run's event knows costs a request, so all else is looked at first.
        cheap = RunFilter(function=where.function, statuses=where.statuses, created=where.created, ended=where.ended)
        async for at, view in self._ordered():
            if (place is None or at < place) and view.function in self._functions and cheap.matches(view):
                told = await self._runs.told(view)
                if where.matches(told):
                    yield at, told

    async def _ordered(self) -> AsyncIterator[tuple[Place, RunView]]:
        """All runs, newest first; those of one moment by their ids, since the server has no order for them."""
        same: list[tuple[Place, RunView]] = []
        async for view in self._runs.newest():
            if same and view.created_at != same[0][0][0]:
                for each in sorted(same, key=_place, reverse=True):
                    yield each
                same = []
            same.append(((view.created_at, view.id), view))
        for each in sorted(same, key=_place, reverse=True):
            yield each


def _place(each: tuple[Place, RunView]) -> Place:
    return each[0]


def _check(where: RunFilter) -> None:
    if where.statuses & UNTOLD and RunStatus.RUNNING not in where.statuses:
        raise UnsupportedFeatureError(
            backend="inngest",
            feature="status='waiting' and 'retrying' in runs()",
            reason="Inngest does not tell what a live run waits for; ask for status='running', which has all live runs",
        )
