"""Random programs in processes of their own, on SQLite, which are killed with SIGKILL and go on in the next process."""

from __future__ import annotations

import base64
import json
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.backends.sqlite import SQLiteBackend
from durably.core import Event
from durably.core.run_view import LIVE
from durably.core.steps import Probe
from durably.testing.crash.faults import Crash, chain
from durably.testing.crash.fork_server import ForkServer
from durably.testing.crash.worker_process import WorkerProcess, restart_until_end
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.law_checks import check_journal
from durably.testing.fuzz.oracle import expect
from durably.testing.fuzz.programs import Block
from durably.testing.laws import (
    Outcome,
    Violation,
    append_only,
    every_run_ends,
    limited_starts,
    no_start_after_commit,
    one_key_per_step,
    raise_violations,
    same_outcome,
)
from durably.testing.ledger import EffectLedger, append_line
from durably.testing.snapshot import Snapshot

__all__ = ["run_under_kills"]

RUN = "run"
ROUNDS = 60


def run_under_kills(block: Block, crashes: Sequence[Crash], folder: Path) -> int:
    """Run a program to its end, in as many processes as the crashes make, and hold it to the laws.

    Args:
        block: The program.
        crashes: Where processes kill themselves, in order; what is not passed does not strike.
        folder: A folder of its own.

    Returns:
        How many processes were killed.

    Raises:
        BrokenLawError: If a law does not hold.
    """
    ledger = EffectLedger(folder / "ledger.jsonl")
    snapshots: list[Snapshot] = []
    text = base64.b64encode(pickle.dumps(block)).decode()
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
    _check(block, snapshots, ledger, folder)
    return len(snapshots)


def _check(block: Block, snapshots: Sequence[Snapshot], ledger: EffectLedger, folder: Path) -> None:
    after = Snapshot.of_journal(SQLiteJournal(folder / "runs.db"))
    expected, log = expect(block), after.runs[RUN]
    end = log.history.records[-1]
    wanted = Outcome(
        status="failed" if expected.fails else "completed",
        output=None if expected.fails else json.dumps(expected.result),
    )
    output = None if end.output is None else json.dumps(end.value)
    raise_violations(
        [
            *every_run_ends(after),
            *same_outcome(wanted, Outcome(status=log.status.value, output=output, error=end.error)),
            *(violation for before in snapshots for violation in append_only(before, after)),
            *check_journal(after),
            *no_start_after_commit(ledger),
            *limited_starts(ledger.entries, after),
            *one_key_per_step(ledger),
        ]
    )


class _KeptFailures(Counter[str]):
    """How often each body has failed, in a file, so that it fails no more often in the next process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        for place in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            super().__setitem__(place, self[place] + 1)

    def __setitem__(self, place: str, count: int) -> None:
        if count > self[place]:
            append_line(self._path, place)
        super().__setitem__(place, count)


async def live(probe: Probe, text: str, folder: str) -> Any:
    """One life of a program, in its process."""
    program = DurableProgram(pickle.loads(base64.b64decode(text)))
    program._failures = _KeptFailures(Path(folder, "failures.txt"))
    clock = VirtualClock()
    worker = SQLiteBackend(Path(folder, "runs.db"), program.functions, clock=clock)
    worker.probe = chain(EffectLedger(Path(folder, "ledger.jsonl")), probe)
    async with worker:
        run = await worker.start(program.functions[0], run_id=RUN)
        for _ in range(ROUNDS):
            await worker.drain()
            if not await worker.runs(status=LIVE, limit=1):
                return (await run.refresh()).status.value
            await worker.send(*[Event("program/outside", {"key": key}) for key in sorted(program.awaited)])
    raise RuntimeError(f"the program did not end within {ROUNDS} rounds")
