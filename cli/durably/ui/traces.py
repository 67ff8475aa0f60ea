"""The traces that the page shows, kept while nothing happens to their runs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from durably.core import Backend, Run, Trace

__all__ = ["Traces"]

KEPT = 32
"""How many traces are kept: a long one takes a third of a second to read."""


class Read(NamedTuple):
    """A run, its trace, and how many records that was read from."""

    run: Run[Any]
    trace: Trace
    records: int


class Traces:
    """Reads traces, each once for every state of its run.

    Args:
        backend: The engine.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._kept: OrderedDict[object, tuple[Trace, int]] = OrderedDict()

    async def of(self, run_id: str) -> Read:
        """A run and its trace.

        Raises:
            RunNotFoundError: If there is no such run.
        """
        run = await self._backend.run(run_id)
        # Of a run that has ended not even the records are read again: only a retry changes it, and its end with it.
        ended = (run.id, run.status, run.view.ended_at)
        if run.status.final and ended in self._kept:
            return Read(run, *self._keep(ended, self._kept[ended]))
        history = await run.history()
        key = ended if run.status.final else (run.id, len(history))
        return Read(run, *self._keep(key, self._kept.get(key) or (Trace.of(history), len(history))))

    def _keep(self, key: object, read: tuple[Trace, int]) -> tuple[Trace, int]:
        self._kept[key] = read
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return read
