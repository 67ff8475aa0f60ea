"""Workers killed by SIGKILL: the run goes on elsewhere, and every law of the harness holds."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Run
from durably.core.ids import new_id
from durably.core.steps import Point
from durably.testing import EffectLedger, FaultPlan
from durably.testing.crash.experiment import Experiment
from durably.testing.crash.law_checks import broken_laws
from durably.testing.snapshot import Snapshot
from tests.temporal.world import EXPECTED, LEDGER, backend, cashier, clerk, effects, world

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
PARTS = ("core", "backends", "providers", "testing", "cli", ".")
ONCE = ["aside", "charge 1", "charge 2", "charge 3", "last", "question"]


class Workers:
    """Processes that work on a task queue.

    Args:
        address: The server's.
        folder: Where effects and bodies are noted.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.queue = f"kill-{new_id()}"
        self.effects = folder / "effects.jsonl"
        self.journal = folder / "journal.jsonl"
        self._address = address
        self._started: list[Process] = []

    async def start(self, *crash: str) -> Process:
        """A worker that kills itself at a crash, if told to."""
        path = os.pathsep.join(str(ROOT / part) for part in PARTS)
        environment = {**os.environ, LEDGER: str(self.effects), "PYTHONPATH": path}
        command = [sys.executable, "-m", "tests.temporal.world", self._address, self.queue, str(self.journal), *crash]
        worker = await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT)
        self._started.append(worker)
        return worker

    async def end(self) -> None:
        """Kill those that are left."""
        for worker in self._started:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()

    def heir(self, client: Client, **worker: Any) -> TemporalBackend:
        """A worker in this process, whose bodies are noted with those of the others."""
        heir = backend(client, self.queue, **worker)
        heir.probe = FaultPlan(ledger=EffectLedger(self.journal))
        return heir

    async def cell(self, backend: TemporalBackend, run: Run[Any]) -> Experiment:
        """What was seen of a run, as the laws look at it."""
        cell = Experiment((), run.id, EffectLedger(self.journal))
        try:
            cell.value = await run.result()
        finally:
            await run.refresh()
            cell.output, cell.error = run.view.output, run.view.error
            cell.after = await Snapshot.of_backend(backend, run.id)
            cell.state = str(sorted({name for name, *_ in effects(self.effects)}))
        return cell


@pytest_asyncio.fixture
async def workers(temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workers]:
    made = Workers(temporal_address, tmp_path)
    monkeypatch.setenv(LEDGER, str(made.effects))
    yield made
    await made.end()


_calm: list[Experiment] = []


@pytest_asyncio.fixture
async def calm(client: Client, workers: Workers) -> AsyncIterator[Experiment]:
    """The run that no crash met; one for all tests."""
    if not _calm:
        async with workers.heir(client) as backend:
            _calm.append(await workers.cell(backend, await backend.start(world, run_id=new_id())))
        workers.effects.unlink()
        workers.journal.unlink()
    yield _calm[0]


def check(calm: Experiment, cell: Experiment) -> None:
    """Every law, and that effects have the keys and the numbers they must have."""
    assert cell.value == EXPECTED
    assert not broken_laws(calm, cell), "\n".join(str(each) for each in broken_laws(calm, cell))
    attempts = [(each.run_id, each.key, each.attempt) for each in cell.ledger.of("started")]
    assert len(set(attempts)) == len(attempts), f"every execution has a number of its own: {attempts}"


MOMENTS = {
    "before": "world::run/before_first",
    "llm": "think:1/before_body",
    "llm-answered": "think:1/after_effect",
    "tool": "tool-charge/in_body",
    "gather": "gather[1]/tool-charge/after_effect",
    "gather-recorded": "gather[0]/tool-charge/after_commit",
    "delegate": "clerk/child_started",
    "delegate-done": "clerk/child_done",
    "closure": "aside/after_effect",
    "wait": "gather[0]/reply/registered",
    "send": "gather[1]/ask/after_send",
    "end": "world::run/before_result",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_run_goes_on_where_its_worker_was_killed(
    client: Client, workers: Workers, calm: Experiment, moment: str
) -> None:
    first = await workers.start(MOMENTS[moment])
    run = await backend(client, workers.queue).start(world, run_id=new_id())
    assert await first.wait() == -signal.SIGKILL
    async with workers.heir(client) as heir:
        check(calm, await workers.cell(heir, await heir.run(run.id)))


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["tool", "gather", "closure", "wait"])
async def test_a_run_goes_on_where_nothing_is_cached(
    client: Client, workers: Workers, calm: Experiment, moment: str
) -> None:
    first = await workers.start(MOMENTS[moment])
    run = await backend(client, workers.queue).start(world, run_id=new_id())
    assert await first.wait() == -signal.SIGKILL
    async with workers.heir(client, max_cached_workflows=0) as heir:
        check(calm, await workers.cell(heir, await heir.run(run.id)))


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["llm", "tool", "gather", "delegate", "closure", "wait"])
async def test_of_two_workers_one_dies(client: Client, workers: Workers, calm: Experiment, moment: str) -> None:
    mortal = await workers.start(MOMENTS[moment])
    caller = backend(client, workers.queue)  # never entered: it starts runs and waits
    runs = [await caller.start(world, run_id=new_id()) for _ in range(3)]
    while not effects(workers.effects):  # noqa: ASYNC110  # another process writes the file
        await asyncio.sleep(0.02)
    other = await workers.start()
    death = asyncio.create_task(mortal.wait())
    while not death.done() and len(runs) < 20:  # the other one may be the one to come to the moment
        runs.append(await caller.start(world, run_id=new_id()))
        await asyncio.wait({death}, timeout=1)
    assert mortal.returncode == -signal.SIGKILL
    for run in runs:
        check(calm, await workers.cell(caller, run))
    assert other.returncode is None
    for agent in (cashier, clerk):
        parents = [each.view.parent for each in await caller.runs(function=agent)]
        assert all(parents.count(run.id) == 1 for run in runs), "one child a parent"


@pytest.mark.asyncio
async def test_a_worker_that_was_stopped_comes_too_late(client: Client, workers: Workers, calm: Experiment) -> None:
    stale = await workers.start(MOMENTS["gather"], "SIGSTOP")
    run = await backend(client, workers.queue).start(world, run_id=new_id())
    await asyncio.to_thread(os.waitid, os.P_PID, stale.pid, os.WSTOPPED)
    EffectLedger(workers.journal).crashed(Point("after_effect", "world", run.id, ""))  # to the others it is gone
    async with workers.heir(client) as heir:
        cell = await workers.cell(heir, await heir.run(run.id))
        check(calm, cell)
        stale.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)
        assert (await workers.cell(heir, await heir.run(run.id))).after == cell.after, "what it says late is refused"
    assert Counter(name for name, *_ in effects(workers.effects))["charge 3"] >= 2, "both have done it"


@pytest.mark.asyncio
async def test_a_worker_that_is_told_to_stop_lets_its_bodies_end(client: Client, workers: Workers) -> None:
    worker = await workers.start()
    caller = backend(client, workers.queue)
    run = await caller.start(world, run_id=new_id())
    while not effects(workers.effects):  # noqa: ASYNC110  # another process writes the file
        await asyncio.sleep(0.02)
    worker.terminate()
    assert await worker.wait() == 0
    async with caller:
        assert await run.result() == EXPECTED
    assert Counter(name for name, *_ in effects(workers.effects)) == Counter(ONCE), "nothing ran twice"
