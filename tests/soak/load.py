"""The client of the soak: starts runs at a steady rate, and answers approvals as a person would."""

from __future__ import annotations

import asyncio
import random
import time

from durably.backends import SQLiteBackend
from durably.core import ApprovalNotPendingError
from tests.soak.work import INPUTS, note

__all__ = ["approve_all", "start_runs"]


async def start_runs(backend: SQLiteBackend, *, seconds: float, rate: float, seed: int) -> int:
    """Start so many runs a second, of each kind in turn; how many."""
    choose, began, n = random.Random(seed), time.monotonic(), 0
    kinds = list(INPUTS)
    while time.monotonic() < began + seconds:
        if n % len(kinds) == 0:
            choose.shuffle(kinds)
        function = kinds[n % len(kinds)]
        run_id = f"{function}-{n}"
        note("start", run=run_id, function=function, n=n)
        await backend.start(function, INPUTS[function](n), run_id=run_id)
        n += 1
        await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
    return n


async def approve_all(backend: SQLiteBackend, every: float = 0.5) -> None:
    """Approve whatever asks, until it is cancelled."""
    while True:
        for pending in await backend.approvals(function="payer"):
            try:
                await backend.approve(pending, by="soak")
            except ApprovalNotPendingError:  # its last answer is on its way to a worker that is stopped
                continue
        await asyncio.sleep(every)
