"""The runs that fit what a user asks for, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from durably.core import Backend, Run, RunNotFoundError, RunStatus

__all__ = ["find_runs"]

LOOKED_THROUGH = 2_000
"""How many of the newest runs are looked through for a text in their ids."""


async def find_runs(
    backend: Backend, *, function: str | None = None, status: RunStatus | None = None, text: str = "", limit: int
) -> Sequence[Run[Any]]:
    """The newest runs that fit.

    Args:
        backend: The engine.
        function: The id of their function, or ``None``.
        status: Where they stand, or ``None``.
        text: What their ids contain: looked for among the newest runs; a whole id is always found.
        limit: How many at most.
    """
    if not text:
        return await backend.runs(function=function, status=status, limit=limit)
    newest = await backend.runs(function=function, status=status, limit=LOOKED_THROUGH)
    found = [run for run in newest if text in run.id]
    if not any(run.id == text for run in found):
        found += [run for run in await _exact(backend, text) if function in (None, run.view.function)]
    return found[:limit]


async def _exact(backend: Backend, run_id: str) -> list[Run[Any]]:
    try:
        return [await backend.run(run_id)]
    except RunNotFoundError:
        return []
