"""Mutants of workers that are told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from durably.backends.replay.driver import Driver
from durably.core.errors import SuspendSignal
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C06")
class DrainTakesNewRuns(Driver):
    """While its last bodies end, the worker goes on taking runs."""

    async def stop(self, grace: float) -> Collection[str]:
        for run_id in list(self._passes):
            self.interrupt(run_id, SuspendSignal)
        await self._drain(asyncio.get_running_loop().time() + grace)
        return await super().stop(grace)
