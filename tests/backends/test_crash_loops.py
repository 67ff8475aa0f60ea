"""Between crashes: how long a run waits, beside whom it is taken up, and what a worker leaves behind that stops."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.crash_watch import CrashWatch
from durably.backends.replay.crashes import CrashLog, pause_after
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import NewRun
from durably.core import Agent, Context, Event, RunStatus, current_step, function, tool
from durably.core.steps import Point
from durably.testing import ScriptedModel, call
from durably.testing.conformance.subject import Kill, Where, nth

CRASHES = 5

begun: dict[str, list[float]] = {}
"""When the bodies of each run began, on a virtual clock."""

clock = VirtualClock()


async def _deadly() -> None:
    begun.setdefault(current_step().run_id, []).append(clock.now())
    raise Kill


async def _note() -> str:
    begun.setdefault(current_step().run_id, []).append(clock.now())
    return "done"


@function("deadly", crash_limit=CRASHES - 1)
async def deadly(ctx: Context[None]) -> str:
    try:
        await ctx.step.run("deadly", _deadly)
    except Exception as error:
        return type(error).__name__
    return "survived"


@function("short")
async def short(ctx: Context[None]) -> str:
    return await ctx.step.run("note", _note)


@function("long")
async def long(ctx: Context[None]) -> str:
    await ctx.step.run("begin", _note)
    await ctx.step.wait_for_event("wait", "long/end")
    return await ctx.step.run("note", _note)


@function("wide")
async def wide(ctx: Context[None]) -> str:
    """In a replay its first branch waits already when the second ends."""
    await ctx.step.gather(
        lambda: ctx.step.wait_for_event("wait", "long/end"),
        lambda: ctx.step.run("begin", _note),
    )
    return await ctx.step.run("note", _note)


FUNCTIONS = [deadly, short, long, wide]


async def _lives(journal: MemoryJournal, *run_ids: str) -> int:
    """Open a worker again on what the last one left behind, until one survives; how many did not."""
    lives = 0
    while True:
        backend = MemoryBackend(FUNCTIONS, journal=journal, clock=clock)
        async with backend:
            for run_id in run_ids:
                function = next(each for each in FUNCTIONS if run_id.startswith(each.id))
                await backend.start(function, run_id=run_id)
            try:
                for run_id in run_ids:
                    if not run_id.startswith(("long", "wide")):
                        await (await backend.run(run_id)).result()
                return lives
            except Kill:
                lives += 1


def test_the_pauses_grow_and_have_a_bound() -> None:
    assert [pause_after(crashes) for crashes in range(7)] == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert pause_after(100) == pause_after(10_000) == 60.0


@pytest.mark.asyncio
async def test_recoveries_are_spaced_and_the_first_is_at_once() -> None:
    begun.clear()
    assert await _lives(MemoryJournal(), "deadly-1") == CRASHES
    moments = begun["deadly-1"]
    assert len(moments) == CRASHES
    pauses = [later - before for before, later in itertools.pairwise(moments)]
    assert pauses == pytest.approx([pause_after(number) for number in range(1, CRASHES)])


@pytest.mark.parametrize("waiting", ["long-1", "wide-1"])
@pytest.mark.asyncio
async def test_other_runs_are_taken_up_at_once(waiting: str) -> None:
    begun.clear()
    journal = MemoryJournal()
    assert await _lives(journal, waiting, "deadly-1") == CRASHES
    backend = MemoryBackend(FUNCTIONS, journal=journal, clock=clock)
    async with backend:
        before = clock.now()
        await backend.send(Event("long/end"))
        assert await (await backend.run(waiting)).result() == "done"
        assert clock.now() == before, "a run that only waited is not held up"
    row = journal.get(waiting)
    assert row is not None
    assert max(Counter(row.crashes).values()) <= 2, "once it was seen to wait, no crash is put down to it"


@pytest.mark.asyncio
async def test_two_deadly_runs_are_told_apart() -> None:
    """Each recovery of both would otherwise be cut off by the first of them."""
    begun.clear()
    lives = await _lives(MemoryJournal(), "deadly-1", "deadly-2", "short-1")
    assert lives <= 2 * CRASHES
    assert len(begun["deadly-1"]) <= CRASHES
    assert len(begun["deadly-2"]) <= CRASHES
    assert len(begun["short-1"]) <= 3


@tool
async def crunch() -> str:
    """Crunch numbers."""
    begun.setdefault(current_step().run_id, []).append(current_step().attempt)
    raise Kill


script = ScriptedModel(call("crunch"), "It cannot be done.")
analyst = Agent("analyst", model=script, instructions="Crunch.", tools=[crunch], crash_limit=2)


@pytest.mark.asyncio
async def test_an_agent_ends_whose_tool_kills_it_wherever_it_is_crashed_besides() -> None:
    number, crashed = 0, True
    while crashed:
        begun.clear()
        journal, where = MemoryJournal(), nth(number)
        fired: list[Point] = []

        def probe(point: Point, where: Where = where, fired: list[Point] = fired) -> None:
            if not fired and where(point):
                fired.append(point)
                raise Kill

        lives, result = 0, None
        while result is None:
            lives += 1
            async with MemoryBackend([analyst], journal=journal, clock=clock) as backend:
                backend.probe = probe
                with suppress(Kill):
                    result = await (await backend.start(analyst, "Go", run_id="analyst")).result()
        (told,) = [message for message in result.messages if message.role == "tool"]
        assert (result.text, told.is_error) == ("It cannot be done.", True)
        assert re.search("died [34] times", str(told.content)), (
            "one more than the limit, and what came before it was said"
        )
        assert begun["analyst"] in ([1, 2, 3], [1, 2], [2, 3], [1, 3]), "a crash before the body counts as well"
        assert lives <= 5
        number, crashed = number + 1, bool(fired)
    assert number > 25


def test_notes_come_back_as_they_were_written() -> None:
    log = CrashLog().crashed(3, 10.0).crashed(3, 11.0).stopped(4).crashed(4, 12.0).came(resting=True)
    for each in (log, log.came(resting=False, alone="a"), log.came(resting=False, alone="a").crashed(4, 13.0)):
        assert CrashLog.read(each.counts, each.notes, 1.0) == each
    assert CrashLog.read((2, 2), "", 1.0).times == (1.0, 1.0), "a file of before has no notes"
    assert CrashLog().notes == ""


# -- KeyboardInterrupt


@function("interrupting")
async def interrupting(ctx: Context[None]) -> str:
    return await ctx.step.run("interrupt", _interrupt)


@function("beside")
async def beside(ctx: Context[None]) -> str:
    await ctx.step.run("begin", _note)
    return await ctx.step.run("linger", _linger)


attempts: list[int] = []


def _interrupt() -> str:
    attempts.append(current_step().attempt)
    if len(attempts) == 1:
        raise KeyboardInterrupt
    return "ended"


async def _linger() -> str:
    await asyncio.sleep(0.05)
    return "lingered"


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_a_keyboard_interrupt_from_a_body_stops_the_worker_in_good_order(
    engine: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    heard = signal.default_int_handler  # what runs in the background, under nohup, ignores the signal
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, heard)))
    attempts.clear()
    journal = MemoryJournal()

    def make() -> MemoryBackend | SQLiteBackend:
        functions = [interrupting, beside]
        if engine == "memory":
            return MemoryBackend(functions, journal=journal)
        return SQLiteBackend(tmp_path / "runs.db", functions)

    async def first() -> None:
        async with make() as backend:
            await backend.start(beside, run_id="beside")
            await (await backend.start(interrupting, run_id="interrupting")).result()

    async def second() -> None:
        async with make() as backend:
            rows = [backend.journal.get(run_id) for run_id in ("beside", "interrupting")]
            assert [row and row.status for row in rows] == [RunStatus.RUNNING, RunStatus.RUNNING]
            assert [row and row.crash_log.in_window(0, "linger") for row in rows] == [[], []], (
                "nothing counts as a crash"
            )
            assert await (await backend.run("interrupting")).result() == "ended"
            assert await (await backend.run("beside")).result() == "lingered"

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    asyncio.run(second())
    assert attempts == [1, 2], "the second execution has a number of its own"
    assert signal.getsignal(signal.SIGINT) == heard


@pytest.mark.parametrize("calm", [CrashLog().crashed(3, 1.0), CrashLog().stopped(3), CrashLog().came(resting=True)])
def test_only_runs_that_crashed_twice_in_one_place_are_taken_up_one_at_a_time(calm: CrashLog) -> None:
    journal = MemoryJournal()
    for run_id in ("one", "two"):
        journal.create(NewRun(id=run_id, function="f", event=Event("go").model_dump_json()), worker=None, now=1.0)
    journal.lease("heir", 1000.0)
    logs = {"one": calm, "two": calm.crashed(3, 2.0).crashed(3, 2.0)}
    for run_id, log in logs.items():
        row = journal.get(run_id)
        assert row is not None
        journal.take(row.with_crashes(log))
    claim = journal.claim("heir", ["f"], 100.0, suspects=0)
    assert [row.id for row in claim.runs] == ["one"]
    assert [row.id for row in journal.claim("heir", ["f"], 100.0, suspects=1).runs] == ["two"]


@pytest.mark.asyncio
async def test_a_body_of_a_suspected_run_begins_once_that_is_written_down() -> None:
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Slow:
        journal: Journal = MemoryJournal()

        def write(self, change: object, then: object, otherwise: object) -> asyncio.Future[None]:
            return written

    event = Event("go").model_dump_json()
    row = Slow.journal.create(NewRun(id="r", function="f", event=event), worker=None, now=1.0)[0]
    row = row.with_crashes(CrashLog().crashed(0, 1.0).crashed(0, 2.0))
    beginning = asyncio.ensure_future(CrashWatch(Slow(), row, []).body_begins())
    await asyncio.sleep(0)
    assert not beginning.done()
    written.set_result(None)
    await beginning
