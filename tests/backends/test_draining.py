"""What a worker that stops gives back, and when: a run at once where it stands still, a body once it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from durably.backends import MemoryBackend
from durably.backends.memory import MemoryJournal
from durably.core import Context, Event, current_step, function

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(10)]

gates: dict[str, asyncio.Event] = {}
attempts: list[tuple[str, int]] = []


async def _hold() -> str:
    step = current_step()
    attempts.append((step.run_id, step.attempt))
    await gates.setdefault(step.run_id, asyncio.Event()).wait()
    return "held"


@function("holds")
async def holds(ctx: Context[None]) -> str:
    return await ctx.step.run("hold", _hold)


@function("idle")
async def idle(ctx: Context[None]) -> str:
    await ctx.step.wait_for_event("wait", "drain/end")
    return "idle"


class Stopping:
    """A worker that is being stopped while bodies run."""

    def __init__(self, journal: MemoryJournal, closing: asyncio.Task[None]) -> None:
        self._journal = journal
        self.closing = closing

    async def until_it_holds(self, *run_ids: str) -> None:
        """Wait until these are the runs that it still has."""
        while True:
            rows = [self._journal.get(run_id) for run_id in ("idle", "one", "two")]
            if [row.id for row in rows if row is not None and row.owner is not None] == list(run_ids):
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def stopping(journal: MemoryJournal, max_resting: int | None, drain: float) -> AsyncIterator[Stopping]:
    gates.clear()
    attempts.clear()
    backend = MemoryBackend([holds, idle], journal=journal, max_resting=max_resting)
    backend.drain_timeout = drain
    await backend.__aenter__()
    for code, run_id in ((idle, "idle"), (holds, "one"), (holds, "two")):
        await backend.start(code, run_id=run_id)
    while len(attempts) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    closing = asyncio.create_task(backend.__aexit__(None, None, None))
    try:
        yield Stopping(journal, closing)
    finally:
        for gate in gates.values():
            gate.set()
        await closing


async def finished(journal: MemoryJournal) -> list[str]:
    """What another worker brings the runs to."""
    async with MemoryBackend([holds, idle], journal=journal) as heir:
        await heir.send(Event("drain/end"))
        return [await (await heir.run(run_id)).result() for run_id in ("idle", "one", "two")]


@pytest.mark.parametrize("max_resting", [None, 0], ids=["in memory", "unwound"])
async def test_a_run_is_given_back_as_soon_as_it_stands_still(max_resting: int | None) -> None:
    journal = MemoryJournal()
    async with stopping(journal, max_resting, 60) as worker:
        await worker.until_it_holds("one", "two")
        gates["one"].set()
        await worker.until_it_holds("two")
        assert not worker.closing.done()
    assert await finished(journal) == ["idle", "held", "held"]
    assert attempts == [("one", 1), ("two", 1)], "no body ran again"


async def test_what_a_stop_cuts_off_runs_again_under_another_number() -> None:
    journal = MemoryJournal()
    async with stopping(journal, None, 0) as worker:
        await worker.closing
    assert await finished(journal) == ["idle", "held", "held"]
    assert sorted(attempts) == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]
    row = journal.get("one")
    assert row is not None
    assert row.crash_log.in_window(0, "hold") == [], "a crash it was not"
