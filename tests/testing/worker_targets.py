"""What worker processes of the tests call; at the top of a module, so that another process finds it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from durably.backends import SQLiteBackend
from durably.core.steps import Point, Probe
from durably.testing import EffectLedger
from durably.testing.crash.faults import chain
from tests.testing import agents


async def pay_on_disk(probe: Probe, folder: str) -> dict[str, Any]:
    """Run an agent whose world is a file, with a ledger beside it."""
    agent, _ = agents.on_disk(Path(folder))
    backend = SQLiteBackend(Path(folder) / "runs.db", [agent])
    backend.probe = chain(EffectLedger(Path(folder) / "ledger.jsonl"), probe)
    async with backend:
        result = await backend.invoke(agent, "refund", run_id="r")
    return {"text": result.text, "pid": os.getpid()}


def print_and_return(probe: Probe, value: Any) -> Any:
    print("said on standard output")
    print("said on standard error", file=sys.stderr)
    probe(Point("before_body", "f", "r", "a"))
    return value


def fail(probe: Probe) -> None:
    raise ConnectionError("the bank is closed")


def exit_at_once(probe: Probe) -> None:
    os._exit(7)


def wait_for_ever(probe: Probe) -> None:
    probe(Point("before_body", "f", "r", "a"))
    time.sleep(1000)


def kill_itself(probe: Probe) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hash_of_a_string(probe: Probe) -> int:
    return hash("durably")
