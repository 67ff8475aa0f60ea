"""One worker of the soak: works until it is told to stop. Called as: worker DATABASE LEASE_SECONDS NAME [LIMIT]."""

from __future__ import annotations

import asyncio
import logging
import sys

from durably.backends import SQLiteBackend
from durably.backends.replay import lease
from durably.core import run_worker
from tests.soak.work import FUNCTIONS

DRAIN_SECONDS = 5


async def main(database: str, seconds: str, name: str, limit: str = "") -> None:
    lease.LEASE_SECONDS = float(seconds)
    limits = int(limit) if limit else None
    backend = SQLiteBackend(database, FUNCTIONS, worker_name=name, max_runs=limits, max_steps=limits, busy_timeout=120)
    await run_worker(backend, drain_timeout=DRAIN_SECONDS)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {sys.argv[3]} %(levelname)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
