"""One soak, from the first worker to the last."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from durably.backends import SQLiteBackend
from tests.soak.fleet import Fleet
from tests.soak.laws import FINAL
from tests.soak.load import approve_all, start_runs
from tests.soak.work import LEDGER

__all__ = ["soak"]

MEASURE_SECONDS = 2.0


async def soak(
    directory: Path,
    *,
    seconds: float,
    workers: int,
    rate: float,
    harms: Sequence[str],
    pause: float,
    lease: float,
    seed: int,
    patience: float,
) -> Fleet:
    """Start runs and harm workers for so many seconds, then wait for the runs to end, and end the workers.

    Args:
        directory: Where the database and the ledger are kept.
        seconds: How long runs are started and workers harmed.
        workers: How many there are.
        rate: How many runs are started in a second.
        harms: See :data:`tests.soak.fleet.HARMS`.
        pause: Seconds between two harms of one worker.
        lease: Seconds of a lease.
        seed: Fixes the choices.
        patience: How many seconds the runs are given to end; what is left then has not ended.
    """
    os.environ[LEDGER] = str(directory / "ledger")
    fleet = Fleet(directory, workers, lease, harms, pause, seed)
    beside: list[asyncio.Task[None]] = []
    async with SQLiteBackend(directory / "runs.db", busy_timeout=120) as client:
        fleet.start()
        try:
            await _up(client, workers)
            beside = [
                asyncio.create_task(fleet.measure(MEASURE_SECONDS)),
                asyncio.create_task(approve_all(client)),
            ]
            await asyncio.gather(start_runs(client, seconds=seconds, rate=rate, seed=seed), fleet.harm(seconds))
            await _ended(directory / "runs.db", patience)
            for task in beside:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task  # what it failed of is raised
            await fleet.stop()
        finally:
            fleet.kill()
    return fleet


async def _up(client: SQLiteBackend, workers: int) -> None:
    # The rules of a function that a client starts by its id are those that its workers registered.
    while sum(1 for each in await client.workers() if each.functions) < workers:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def _ended(path: Path, patience: float) -> None:
    database = sqlite3.connect(path)
    deadline = time.monotonic() + patience
    live = f"SELECT count(*) FROM runs WHERE status NOT IN ({', '.join('?' * len(FINAL))})"
    while time.monotonic() < deadline and database.execute(live, FINAL).fetchone()[0]:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    database.close()
