"""The traces that the page shows, kept while nothing happens to their runs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from durably.core import Backend, Run, Trace
from durably.core.history import History

__all__ = ["Traces"]

KEPT = 32
"""How many traces are kept: a long one takes a third of a second to read."""


class Traces:
    """Reads traces, each once for every state of its run.

    Args:
        backend: The engine.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._kept: OrderedDict[tuple[str, int], Trace] = OrderedDict()

    async def of(self, run_id: str) -> tuple[Run[Any], Trace]:
        """A run and its trace.

        Raises:
            RunNotFoundError: If there is no such run.
        """
        run = await self._backend.run(run_id)
        return run, self._trace(await run.history())

    def _trace(self, history: History) -> Trace:
        key = (history.run_id, len(history))
        if key not in self._kept:
            self._kept[key] = Trace.of(history)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]
