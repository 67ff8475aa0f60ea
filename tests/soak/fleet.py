"""The workers of the soak as processes: started, harmed, started again, and measured."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.work import LEDGER, note

__all__ = ["HARMS", "Fleet", "Sample"]

HARMS = ("SIGKILL", "SIGSTOP", "SIGTERM")
"""Killed; stopped for longer than its lease, and woken; told to drain."""

LIMIT = "4"
"""``max_runs`` and ``max_steps`` of the last worker."""

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """What was measured at one moment: seconds since the start, bytes in memory of each worker, bytes of the log."""

    at: float
    memory: list[int]
    log: int


@dataclass
class Fleet:
    """Worker processes on one file.

    Attributes:
        directory: Where the database ``runs.db``, the ``ledger`` and what the workers say, ``workers.log``, are.
        size: How many workers. If workers are stopped at all, that is all that is done to the first of several: what
            it has in memory shows whether that grows.
        lease: Seconds of their leases.
        harms: What is done to them, of :data:`HARMS`.
        pause: Seconds between two harms of one worker.
        seed: Fixes the choices.
        odd_exits: Workers that ended otherwise than they were told to.
        samples: What was measured.
    """

    directory: Path
    size: int
    lease: float
    harms: Sequence[str]
    pause: float
    seed: int
    odd_exits: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    _workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        self._workers = [self._start(place) for place in range(self.size)]

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        limit = [LIMIT] if place == self.size - 1 > 0 else []
        arguments = [str(self.directory / "runs.db"), str(self.lease), f"worker-{place}", *limit]
        with (self.directory / "workers.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.soak.worker", *arguments],
                env={**os.environ, LEDGER: str(self.directory / "ledger")},
                stderr=log,
            )

    async def harm(self, seconds: float) -> None:
        """Harm each worker now and then for so long, whatever befalls the others."""
        await asyncio.gather(*(self._harm_one(place, seconds) for place in range(self.size)))

    async def _harm_one(self, place: int, seconds: float) -> None:
        choose, deadline = random.Random(f"{self.seed}/{place}"), time.monotonic() + seconds
        spared = place == 0 < self.size - 1 and "SIGSTOP" in self.harms
        while time.monotonic() < deadline:
            await asyncio.sleep(self.pause * choose.uniform(0.5, 1.5))
            await self._harm(place, "SIGSTOP" if spared else choose.choice(self.harms))

    async def _harm(self, place: int, harm: str) -> None:
        worker = self._workers[place]
        if worker.poll() is not None:
            self.odd_exits.append(f"worker-{place} ended by itself with {worker.returncode}")
        elif harm == "SIGSTOP":
            note(harm, victim=worker.pid)
            worker.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self.lease * 1.5)
            note("SIGCONT", victim=worker.pid)
            worker.send_signal(signal.SIGCONT)
            return
        else:
            note(harm, victim=worker.pid)
            worker.send_signal(signal.Signals[harm])
            await self._ended(place, (-signal.SIGKILL,) if harm == "SIGKILL" else (0, -signal.SIGTERM))
        self._workers[place] = self._start(place)

    async def _ended(self, place: int, codes: Sequence[int]) -> None:
        # A worker that is told to end before it listens to signals dies of it.
        code = await asyncio.to_thread(self._workers[place].wait)
        if code not in codes:
            self.odd_exits.append(f"worker-{place} ended with {code} instead of {codes}")

    async def measure(self, every: float) -> None:
        """Measure until it is cancelled."""
        began = time.monotonic()
        while True:
            log = self.directory / "runs.db-wal"
            size = log.stat().st_size if log.exists() else 0
            memory = [_memory(worker.pid) for worker in self._workers]
            self.samples.append(Sample(time.monotonic() - began, memory, size))
            await asyncio.sleep(every)

    async def stop(self) -> None:
        """Tell all to end, and see that they do."""
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for place in range(len(self._workers)):
            await self._ended(place, (0, -signal.SIGTERM))

    def kill(self) -> None:
        """End what is still there, whatever happened."""
        for worker in self._workers:
            worker.kill()
            worker.wait()


def _memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):  # it is gone, or on its way
        return 0
