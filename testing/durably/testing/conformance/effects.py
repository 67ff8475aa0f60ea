"""What the tests of runs that are taken up again look at: what bodies did, and how a run stands."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from durably.core import Run, RunStatus, current_step

__all__ = ["Ledger", "until", "until_stuck"]


class Ledger:
    """What bodies did: each execution by the name of its effect, with its key and its attempt."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self.broken: set[str] = set()

    async def effect(self, name: str) -> str:
        step = current_step()
        self.seen.append((name, step.idempotency_key, step.attempt))
        if name in self.broken:
            raise ConnectionError(f"{name} is down")
        return name

    @property
    def counts(self) -> Counter[str]:
        return Counter(name for name, *_ in self.seen)

    def check_attempts(self) -> None:
        """No two executions of a step saw the same number, and all saw the same key."""
        assert len({(key, attempt) for _, key, attempt in self.seen}) == len(self.seen)
        assert len({(name, key) for name, key, _ in self.seen}) == len(self.counts)


async def until(run: Run[Any], condition: Callable[[Run[Any]], bool]) -> Run[Any]:
    """Look at a run until it is as it should be."""
    while not condition(run):
        await asyncio.sleep(0.01)
        await run.refresh()
    return run


async def until_stuck(run: Run[Any]) -> Run[Any]:
    """Look at a run until no code fits it."""
    return await until(run, lambda run: run.status is RunStatus.STUCK)
