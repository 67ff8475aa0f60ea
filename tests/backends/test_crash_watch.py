"""What is written down of a run that crashed twice in one place, and how long others wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from durably.backends import MemoryBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.crash_watch import TRIAL_SECONDS, CrashWatch, Trial
from durably.backends.replay.crashes import CrashLog
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import NewRun
from durably.core import Context, Event, Function, current_step, function
from durably.core.run_events import started_event

pytestmark = pytest.mark.asyncio

TWICE = CrashLog().crashed(1, 1.0).crashed(1, 2.0)


class Notes:
    """The log of a worker, as far as notes go; how often it was written to."""

    def __init__(self) -> None:
        self.journal: Journal = MemoryJournal()
        self.written = 0

    def write(
        self, change: Callable[[], None], then: Callable[[None], None], otherwise: Callable[[BaseException], None]
    ) -> asyncio.Future[None]:
        self.written += 1
        return self.journal.write(change, then, otherwise)


def watched(log: CrashLog = TWICE) -> tuple[CrashWatch, Notes, Callable[[], CrashLog]]:
    """The watch of a run that has one record, where it writes, and what is stored of the run."""
    notes = Notes()
    event = Event("go").model_dump_json()
    row, _ = notes.journal.create(NewRun(id="r", function="f", event=event), worker=None, now=1.0)
    notes.journal.take(row.with_crashes(log))

    def stored() -> CrashLog:
        found = notes.journal.get("r")
        assert found is not None
        return found.crash_log

    return CrashWatch(notes, row.with_crashes(log), notes.journal.records("r")), notes, stored


async def test_a_run_that_came_further_writes_no_more_notes() -> None:
    watch, notes, _ = watched()
    told: list[str] = []
    watch.cleared = lambda: told.append("cleared")
    assert watch.suspected
    watch.progressed()
    assert told == ["cleared"]
    assert not watch.suspected
    await watch.body_begins()
    watch.rests()
    assert notes.written == 0


async def test_a_run_that_rests_lets_others_begin() -> None:
    watch, notes, stored = watched()
    told: list[str] = []
    watch.cleared = lambda: told.append("cleared")
    watch.rests()
    assert told == ["cleared"]
    assert stored().resting
    watch.rests()
    assert notes.written == 1, "what is written down already is not written again"


async def test_code_that_goes_on_after_a_rest_is_to_blame_again() -> None:
    watch, notes, stored = watched()
    watch.goes_on()
    assert notes.written == 0, "it has come to nothing yet: a crash now is put down to code around steps"
    watch.rests()
    watch.goes_on()
    assert not stored().resting
    assert stored().crashed(1, 3.0).repeated(1) == 3


async def test_a_body_that_runs_alone_is_noted_until_it_ends() -> None:
    watch, _, stored = watched()
    watch.alone = "a"
    await watch.body_begins()
    assert stored().alone == "a"
    watch.progressed()
    watch.lone_body_ended()
    assert stored().alone == ""
    assert not stored().resting, "its code goes on"
    assert not watch.notes_bodies


async def test_others_wait_for_a_trial_for_a_minute_at_most() -> None:
    clock, over = VirtualClock(), list[float]()
    trial = Trial(clock, lambda: over.append(clock.now()))
    began = clock.now()
    trial.begin("one")
    trial.end("two")
    assert trial.run_id == "one", "it is not over because another run ends"
    assert clock.advance()
    await asyncio.sleep(0)
    assert over == [began + TRIAL_SECONDS]
    assert trial.run_id is None
    trial.begin("three")
    trial.end("three")
    await asyncio.sleep(0)
    assert len(over) == 2
    assert not clock.advance(), "nothing is left of a trial that is over"


# -- two suspected runs on one worker

gates: dict[str, asyncio.Event] = {}
begun: list[str] = []


async def _hold() -> None:
    place = f"{current_step().run_id}/{current_step().key}"
    begun.append(place)
    await gates.setdefault(place, asyncio.Event()).wait()


@function("held")
async def held(ctx: Context[None]) -> None:
    await ctx.step.run("first", _hold)
    await ctx.step.run("second", _hold)


@function("waiting")
async def waiting(ctx: Context[None]) -> None:
    await ctx.step.wait_for_event("wait", "end")


def _left_behind(journal: MemoryJournal, run_id: str, code: Function[None, None], log: CrashLog) -> None:
    new = NewRun(id=run_id, function=code.id, event=started_event(code, run_id, "null"))
    row, _ = journal.create(new, worker=None, now=time.time())
    journal.take(row.with_crashes(log))


async def _settled() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("log", "code", "at_first"),
    [
        pytest.param(TWICE, held, ["one/first"], id="until it comes further"),
        pytest.param(TWICE, waiting, ["two/first"], id="until it rests"),
        pytest.param(
            CrashLog().crashed(0, 1.0).crashed(0, 2.0), held, ["one/first", "two/first"], id="unless it came further"
        ),
    ],
)
async def test_a_suspected_run_has_a_worker_to_itself(
    log: CrashLog, code: Function[None, None], at_first: list[str]
) -> None:
    gates.clear()
    begun.clear()
    journal = MemoryJournal()
    _left_behind(journal, "one", code, log)
    _left_behind(journal, "two", held, TWICE)
    async with MemoryBackend([held, waiting], journal=journal) as backend:
        await _settled()
        assert begun == at_first
        await backend.claims.claim()
        await _settled()
        assert begun == at_first, "nor is another one taken up by a later look"
        if code is held:
            gates["one/first"].set()
            await _settled()
            assert sorted(begun) == ["one/first", "one/second", "two/first"]
        for gate in ("one/first", "one/second", "two/first", "two/second"):
            gates.setdefault(gate, asyncio.Event()).set()
        await backend.send(Event("end"))
        for run_id in ("one", "two"):
            await (await backend.run(run_id)).result()
