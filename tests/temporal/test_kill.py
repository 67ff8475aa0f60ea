"""Workers killed by SIGKILL: the run goes on elsewhere, and no effect is lost or doubled beyond its window."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from durably.core import History
from durably.core.ids import new_id
from tests.temporal.world import EXPECTED, LEDGER, backend, cashier, clerk, effects, world

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
PARTS = ("core", "backends", "providers", "testing", "cli", ".")
ONCE = ["charge 1", "charge 2", "charge 3", "last", "question"]


class Workers:
    """Processes that work on a task queue.

    Args:
        address: The server's.
        ledger: Where effects are written.
    """

    def __init__(self, address: str, ledger: Path) -> None:
        self.queue = f"kill-{new_id()}"
        self.ledger = ledger
        self._address = address
        self._started: list[Process] = []

    async def start(self, *kill: str) -> Process:
        """A worker that kills itself at a point, if told to."""
        path = os.pathsep.join(str(ROOT / part) for part in PARTS)
        environment = {**os.environ, LEDGER: str(self.ledger), "PYTHONPATH": path}
        command = [sys.executable, "-m", "tests.temporal.world", self._address, self.queue, *kill]
        worker = await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT)
        self._started.append(worker)
        return worker

    async def end(self) -> None:
        """Kill those that are left."""
        for worker in self._started:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


@pytest_asyncio.fixture
async def workers(temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workers]:
    made = Workers(temporal_address, tmp_path / "ledger.jsonl")
    monkeypatch.setenv(LEDGER, str(made.ledger))
    yield made
    await made.end()


def check(ledger: Path, history: History, crashes: int = 1) -> None:
    """The laws that can be seen from outside: nothing lost, one key an effect, a bound on repetition."""
    found = effects(ledger)
    starts = Counter(name for name, *_ in found)
    assert sorted(starts) == ONCE
    assert starts.total() <= len(ONCE) + 2 * crashes, f"only what was under way runs again: {starts}"
    keys = {name: {key for each, *_, key in found if each == name} for name in starts}
    assert all(len(each) == 1 for each in keys.values()), "every execution of an effect sees the same key"
    assert len({key for each in keys.values() for key in each}) == len(ONCE), "and different effects different ones"
    attempts = [(name, attempt) for name, _, _, attempt, _ in found]
    assert len(set(attempts)) == len(attempts), "every execution has a number of its own"
    settled = [record.key for record in history.steps()]
    assert len(set(settled)) == len(settled)
    assert history.status == "completed"


MOMENTS = {
    "llm": ("before_body", "think:1"),
    "llm-answered": ("after_effect", "think:1"),
    "tool": ("in_body", "tool-charge"),
    "gather": ("after_effect", "gather[1]/tool-charge"),
    "delegate": ("child_started", "clerk"),
    "wait": ("registered", "gather[0]/reply"),
    "send": ("after_send", "gather[1]/ask"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_run_goes_on_where_its_worker_was_killed(client: Client, workers: Workers, moment: str) -> None:
    first = await workers.start(*MOMENTS[moment])
    heir = backend(client, workers.queue)
    run = await heir.start(world, run_id=new_id())
    assert await first.wait() == -signal.SIGKILL
    async with heir:
        assert await run.result() == EXPECTED
        check(workers.ledger, await run.history())


@pytest.mark.asyncio
async def test_a_run_goes_on_where_nothing_is_cached(client: Client, workers: Workers) -> None:
    first = await workers.start(*MOMENTS["gather"])
    heir = backend(client, workers.queue, max_cached_workflows=0)
    run = await heir.start(world, run_id=new_id())
    assert await first.wait() == -signal.SIGKILL
    async with heir:
        assert await run.result() == EXPECTED
        check(workers.ledger, await run.history())


@pytest.mark.asyncio
async def test_of_two_workers_one_dies(client: Client, workers: Workers) -> None:
    mortal = await workers.start(*MOMENTS["tool"])
    await workers.start()
    caller = backend(client, workers.queue)  # never entered: it starts runs and waits
    runs = [await caller.start(world, run_id=new_id()) for _ in range(4)]
    assert [await run.result() for run in runs] == [EXPECTED] * 4
    histories = [await run.history() for run in runs]
    assert mortal.returncode in (None, -signal.SIGKILL)
    done = Counter(name for name, *_ in effects(workers.ledger))
    assert sorted(done) == ONCE
    assert done.total() <= 4 * len(ONCE) + 4
    assert {history.status for history in histories} == {"completed"}
    for agent in (cashier, clerk):
        assert len(await caller.runs(function=agent)) == 4, "one child a parent"


@pytest.mark.asyncio
async def test_a_worker_that_is_told_to_stop_lets_its_bodies_end(client: Client, workers: Workers) -> None:
    worker = await workers.start()
    caller = backend(client, workers.queue)
    run = await caller.start(world, run_id=new_id())
    while not effects(workers.ledger):  # noqa: ASYNC110  # another process writes the file
        await asyncio.sleep(0.02)
    worker.terminate()
    assert await worker.wait() == 0
    async with caller:
        assert await run.result() == EXPECTED
    assert Counter(name for name, *_ in effects(workers.ledger)) == Counter(ONCE), "nothing ran twice"
