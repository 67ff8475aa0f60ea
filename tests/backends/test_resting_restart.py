"""Runs that have left memory, and whose worker dies: the next one goes on with them without their histories."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.claims import PORTION
from durably.backends.replay.journal_types import Claim
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import Context, Event, Function, current_step, function
from durably.core.ids import new_id
from durably.core.run_view import RunStatus
from durably.testing.conformance.subject import Kill

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

RUNS = 2 * PORTION + 5
ran: Counter[tuple[str, str]] = Counter()
deadly: list[ReplayBackend] = []
"""A backend whose process the next body ends."""


@pytest.fixture(autouse=True)
def _forget_bodies() -> None:
    ran.clear()
    deadly.clear()


async def note(what: str) -> None:
    info = current_step()
    ran[what, info.run_id] += 1
    if deadly:
        deadly.pop().crash(Kill())
        await asyncio.sleep(0)


@function("child")
async def child(ctx: Context[str]) -> str:
    await ctx.step.wait_for_event("wait", "grown", match={"of": ctx.input})
    return ctx.input


@function("waiter")
async def waiter(ctx: Context[int]) -> list[Any]:
    """Waits in each way there is, also for two things at a time."""
    step, number = ctx.step, ctx.input
    for place in range(3):
        await step.run(f"before-{place}", note, f"before-{place}")
    event = await step.wait_for_event("wait", "go", match={"number": number, "nested": [None, {"a": 1.0}]})
    await step.run("after", note, "after")
    both = await step.gather(
        lambda: step.wait_for_event("left", "left", match={"number": number}),
        lambda: step.wait_for_event("right", "right", match={"number": number}),
    )
    await step.wait_for_event("late", "never", timeout=0.01)
    grown = await step.invoke("child", child, ctx.run_id)
    await step.sleep("pause", 0.01)
    await step.run("last", note, "last")
    return [event is not None, [each is not None for each in both], grown == ctx.run_id]


@function("long")
async def long(ctx: Context[None]) -> None:
    await ctx.step.wait_for_event("wait", "go", match={"text": "x" * 1000})


FUNCTIONS: list[Function[Any, Any]] = [waiter, child, long]


class Machine:
    """Where workers live and die, one after the other.

    Args:
        path: A file, or ``None`` for a journal in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._memory = MemoryBackend().journal

    def worker(self, max_resting: int | None = 0) -> ReplayBackend:
        """The next worker."""
        if self._path is not None:
            return SQLiteBackend(self._path, FUNCTIONS, max_resting=max_resting)
        return MemoryBackend(FUNCTIONS, max_resting=max_resting, journal=self._memory)

    def kill(self, backend: ReplayBackend) -> None:
        """Let a worker die."""
        if isinstance(backend, MemoryBackend):
            self._memory = backend.journal.left_behind()
        backend.crash(Kill())

    def receive(self, events: list[Event]) -> None:
        """Receive events while no worker is up."""
        journal = self._memory if self._path is None else SQLiteJournal(self._path)
        journal.open()
        named = [event.model_copy(update={"id": new_id()}) for event in events]
        journal.publish(named, worker=None, served=(), now=self._memory.latest if self._path is None else time.time())
        journal.close()


@pytest.fixture(params=["memory", "sqlite"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(None if request.param == "memory" else tmp_path / "runs.db")


async def _begin(machine: Machine, runs: int = RUNS) -> None:
    """Let runs come to their first wait on a worker that dies then."""
    async with machine.worker() as backend:
        for number in range(runs):
            await backend.start(waiter, number, run_id=f"run-{number}")
        await backend.drain()
        while backend.live_runs:  # noqa: ASYNC110 - the last of them leaves in a moment
            await asyncio.sleep(0)
        machine.kill(backend)


def _go(number: int) -> Event:
    return Event("go", {"number": number, "nested": [None, {"a": 1}]})


STAGES: list[Callable[[int], list[Event]]] = [
    lambda number: [Event("go", {"number": number}), _go(number)],
    lambda number: [Event("left", {"number": number})],
    lambda number: [Event("right", {"number": number})],
    lambda number: [Event("grown", {"of": f"run-{number}"})],
]


def _count_reads(backend: ReplayBackend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose histories are read."""
    read, records = [], backend.journal.records

    def noted(run_id: str) -> list[Any]:
        read.append(run_id)
        return records(run_id)

    monkeypatch.setattr(backend.journal, "records", noted)
    return read


async def test_no_history_is_read_of_runs_that_rest(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    await _begin(machine)
    backend = machine.worker()
    read = _count_reads(backend, monkeypatch)
    async with backend:
        await backend.drain()
        assert read == []
        assert backend.live_runs == []
        assert {(await backend.run(f"run-{number}")).status for number in range(RUNS)} == {RunStatus.WAITING}
        (worker,) = [each for each in await backend.workers() if each.id == backend.worker]
        assert worker.runs == RUNS
        await backend.send(_go(7))
        await backend.drain()
        assert set(read) == {"run-7"}


async def test_a_worker_takes_up_a_portion_at_a_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    await _begin(machine)
    backend, taken = machine.worker(), []
    claim = backend.journal.claim

    def noted(*args: Any, **options: Any) -> Claim:
        taken.append(claim(*args, **options))
        return taken[-1]

    monkeypatch.setattr(backend.journal, "claim", noted)
    async with backend:
        await backend.drain()
        while sum(len(each.runs) for each in taken) < RUNS:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        assert [row.id for each in taken for row in each.runs] == [f"run-{number}" for number in range(RUNS)]
        assert [len(each.runs) for each in taken][:3] == [PORTION, PORTION, RUNS - 2 * PORTION]


@pytest.mark.parametrize("down", [False, True], ids=["while it is up", "while none is up"])
async def test_each_goes_on_through_a_crash_at_each_wait(machine: Machine, down: bool) -> None:
    runs = 12
    await _begin(machine, runs)
    for stage in STAGES:
        events = [event for number in range(runs) for event in stage(number)]
        if down:
            machine.receive(events)
        async with machine.worker() as backend:
            if not down:
                await backend.send(*events)
            await backend.drain()
            machine.kill(backend)
    async with machine.worker() as backend:
        for number in range(runs):
            assert await (await backend.run(f"run-{number}")).result() == [True, [True, True], True]
        await backend.drain()
        assert backend._worker.host.events.waiting.names == set()
        assert backend._worker.host.events._kept == {}
    bodies = [*(f"before-{place}" for place in range(3)), "after", "last"]
    assert set(ran) == {(what, f"run-{number}") for what in bodies for number in range(runs)}
    assert set(ran.values()) == {1}


async def test_a_crash_while_a_run_rests_is_not_its_own(machine: Machine) -> None:
    await _begin(machine, 3)
    for _ in range(3):
        async with machine.worker() as backend:
            await backend.drain()
            machine.kill(backend)
    async with machine.worker() as backend:
        await backend.drain()
        assert [backend.journal.get(f"run-{number}").crashes for number in range(3)] == [()] * 3  # type: ignore[union-attr]


async def test_a_crash_after_a_rest_counts(machine: Machine) -> None:
    await _begin(machine, 2)
    async with machine.worker() as backend:
        await backend.drain()
        deadly.append(backend)
        memory = backend.journal
        with suppress(Kill):
            await backend.send(_go(1))
            await backend.drain()
        assert backend._worker.log.crash is not None
        if isinstance(backend, MemoryBackend):
            machine._memory = memory.left_behind()  # type: ignore[attr-defined]
    async with machine.worker() as backend:
        await backend.drain()
        crashes = [len(backend.journal.get(f"run-{number}").crashes) for number in range(2)]  # type: ignore[union-attr]
        assert crashes == [0, 1]
    assert ran["after", "run-1"] == 2


async def test_one_that_rests_is_cancelled(machine: Machine) -> None:
    await _begin(machine, 3)
    async with machine.worker() as backend:
        await backend.drain()
        await (await backend.run("run-1")).cancel()
        assert (await backend.wait("run-1")).status is RunStatus.CANCELLED
        await backend.send(*map(_go, range(3)))
        await backend.drain()
    assert [ran["after", f"run-{number}"] for number in range(3)] == [1, 0, 1]


async def test_a_wait_that_its_record_does_not_tell_is_found_by_a_replay(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.worker() as backend:
        run = await backend.start(long, run_id="long")
        await backend.drain()
        assert backend.live_runs == []
        machine.kill(backend)
    backend = machine.worker()
    read = _count_reads(backend, monkeypatch)
    async with backend:
        await backend.drain()
        assert read == ["long"]
        await backend.send(Event("go", {"text": "x" * 1000}))
        assert (await backend.wait(run.id)).status is RunStatus.COMPLETED


async def test_a_worker_that_keeps_all_in_memory_replays_them(machine: Machine) -> None:
    await _begin(machine, 3)
    async with machine.worker(max_resting=None) as backend:
        await backend.drain()
        assert sorted(backend.live_runs) == [f"run-{number}" for number in range(3)]


async def test_a_worker_that_stops_leaves_them_at_rest(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    await _begin(machine, 3)
    async with machine.worker() as backend:
        await backend.drain()
    backend = machine.worker()
    read = _count_reads(backend, monkeypatch)
    async with backend:
        await backend.drain()
        assert read == []
