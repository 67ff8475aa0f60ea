"""Random programs in processes of their own, on SQLite, which are killed with SIGKILL and go on in the next process."""

from __future__ import annotations

import asyncio
import base64
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.backends.sqlite import SQLiteBackend
from durably.backends.sqlite_deltas import SQLiteDeltas
from durably.core.steps import Probe
from durably.testing.crash.faults import Crash, chain
from durably.testing.crash.fork_server import ForkServer
from durably.testing.crash.worker_process import WorkerProcess, restart_until_end
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.operator import Operator
from durably.testing.fuzz.program_laws import check_program, check_stream
from durably.testing.fuzz.programs import Block
from durably.testing.fuzz.stored_pieces import stored_pieces
from durably.testing.fuzz.world import World
from durably.testing.laws import (
    Violation,
    append_only,
    limited_starts,
    no_start_after_commit,
    one_key_per_step,
    raise_violations,
)
from durably.testing.ledger import EffectLedger
from durably.testing.snapshot import Snapshot

__all__ = ["run_under_kills"]

RUN = "run"
ROUNDS = 60


def run_under_kills(block: Block, crashes: Sequence[Crash], folder: Path, *, fork: int | None = None) -> int:
    """Run a program to its end, in as many processes as the crashes make, and hold it to the laws.

    Args:
        block: The program.
        crashes: Where processes kill themselves, in order; what is not passed does not strike.
        folder: A folder of its own.
        fork: Behind which of its steps the run is forked once it has ended; ``None``: not at all.

    Returns:
        How many processes were killed.

    Raises:
        BrokenLawError: If a law does not hold.
    """
    ledger = EffectLedger(folder / "ledger.jsonl")
    snapshots: list[Snapshot] = []
    text = base64.b64encode(pickle.dumps((block, fork))).decode()
    server = ForkServer(live, hash_seed=1)

    def start(number: int, left: Sequence[Crash]) -> WorkerProcess:
        return server.start(text, str(folder), crashes=left, number=number)

    last: WorkerProcess | None = None
    try:
        for process in restart_until_end(start, crashes):
            last = process
            process.wait()
            ledger.reload()
            if process.crash is not None:
                ledger.crashed(process.crash)
                snapshots.append(Snapshot.of_journal(SQLiteJournal(folder / "runs.db")))
    finally:
        server.close()
    assert last is not None
    if last.returncode != 0:
        raise_violations([Violation("L12", f"the last process failed: {last.error_type}: {last.error}", "")])
    _check(block, fork, snapshots, ledger, folder)
    return len(snapshots)


def _check(block: Block, fork: int | None, snapshots: Sequence[Snapshot], ledger: EffectLedger, folder: Path) -> None:
    after = Snapshot.of_journal(SQLiteJournal(folder / "runs.db"))
    program = _program(block, folder)
    parts = Operator(block, program, RUN, fork).parts(after.runs[RUN].history)
    pieces = asyncio.run(stored_pieces(SQLiteDeltas(folder / "runs.db"), after.runs))
    raise_violations(
        [
            *check_program(after, program, parts, repeated=bool(snapshots)),
            *(violation for before in snapshots for violation in append_only(before, after)),
            *(each for log in after.runs.values() for each in check_stream(log, pieces[log.id])),
            *no_start_after_commit(ledger, after),
            *limited_starts(ledger.entries, after),
            *one_key_per_step(ledger),
        ]
    )


def _program(block: Block, folder: Path) -> DurableProgram:
    return DurableProgram(block, World(folder / "world.jsonl"))


async def live(probe: Probe, text: str, folder: str) -> Any:
    """One life of a program, in its process."""
    block, fork = pickle.loads(base64.b64decode(text))
    program = _program(block, Path(folder))
    operator = Operator(block, program, RUN, fork)
    worker = SQLiteBackend(Path(folder, "runs.db"), program.functions, clock=VirtualClock())
    worker.probe = chain(EffectLedger(Path(folder, "ledger.jsonl")), probe)
    async with worker:
        await worker.start(program.functions[0], run_id=RUN)
        for _ in range(ROUNDS):
            await worker.drain()
            if not await operator.act(worker):
                return (await worker.run(RUN)).status.value
    raise RuntimeError(f"the program did not end within {ROUNDS} rounds")
