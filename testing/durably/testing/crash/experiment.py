"""One cell of the matrix: a run that is crashed as planned, started again, and looked at from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from durably.backends.memory import MemoryJournal
from durably.backends.replay.backend import ReplayBackend
from durably.core import Backend, Event, Run
from durably.core.backend import RunStatus
from durably.core.history import History
from durably.core.steps import Point
from durably.testing.crash.ambient_inputs import Hidden
from durably.testing.crash.engines import Store
from durably.testing.crash.faults import Crash, CrashSignal, FaultPlan
from durably.testing.crash.ledger import EffectLedger, Entry
from durably.testing.crash.scenario import Scenario, Subject
from durably.testing.crash.snapshot import Snapshot

__all__ = ["Cell", "Drive", "Fork", "begin", "live", "run_cell"]


@dataclass(slots=True)
class Cell:
    """What was seen of one cell.

    Attributes:
        crashes: What was planned.
        fired: What struck, and where.
        traces: The points passed in each life.
        ledger: The bodies that ran.
        before: What the store held at each crash, where it could be read.
        after: What it held in the end.
        run_id: The run that was started.
        output: Its result as JSON.
        error: Its error as JSON data, if it failed.
        value: Its result as the caller got it in the last life.
        state: What ``state=`` read of the world in the end, as text.
        trouble: Why the cell could not be brought to its end; empty if it could.
    """

    crashes: tuple[Crash, ...]
    run_id: str
    ledger: EffectLedger
    fired: list[tuple[Crash, Point]] = field(default_factory=list)
    traces: list[list[Point]] = field(default_factory=list)
    before: list[Snapshot] = field(default_factory=list)
    after: Snapshot = field(default_factory=lambda: Snapshot({}))
    output: str | None = None
    error: dict[str, Any] | None = None
    value: Any = None
    state: str | None = None
    trouble: str = ""

    @property
    def history(self) -> History:
        """The records of the run that was started."""
        log = self.after.runs.get(self.run_id)
        return History(()) if log is None else log.history


@dataclass(slots=True)
class Drive:
    """What goes on from one life of a cell to the next."""

    scenario: Scenario
    store: Store
    subject: Subject
    plan: FaultPlan
    sent: int = 0
    run: Run[Any] | None = None
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """What a crash at one point of the first life leaves behind, as one run without a crash has shown.

    The ledger and the trace are those of that whole run; ``noted`` and ``passed`` say how much of them counts.
    """

    journal: MemoryJournal
    now: float
    ledger: list[Entry]
    noted: int
    point: Point
    trace: list[Point]
    passed: int
    sent: int


async def run_cell(
    scenario: Scenario,
    crashes: Sequence[Crash] = (),
    *,
    evict: bool = False,
    shift: int = 0,
    hidden: Hidden | None = None,
    fork: Fork | None = None,
) -> Cell:
    """Run one cell in this process.

    Args:
        scenario: What to run.
        crashes: The crashes, in order.
        evict: Whether to replay the run from the start after each step.
        shift: Which values hidden inputs have in the first life; they change with each further one.
        hidden: Values for all lives instead.
        fork: What the first crash left, if that is known already.
    """
    with Store(evict=evict, seed=scenario.seed) as store:
        drive, cell = begin(scenario, store, FaultPlan(crashes, ledger=EffectLedger()))
        subject = drive.subject
        if fork is not None:
            _take_up(fork, drive, cell)
        for life in range(0 if fork is None else 1, len(crashes) + 1):
            if scenario.change is not None:
                drive.subject = scenario.change(subject, life)
            with (hidden or Hidden.of_life(shift + life)).applied(scenario.all_functions(subject)):
                crashed = await live(drive, cell)
            if not crashed:
                break
        cell.fired = drive.plan.fired
        await _look(drive, cell)
        return cell


def begin(scenario: Scenario, store: Store, plan: FaultPlan) -> tuple[Drive, Cell]:
    """Build what a cell tests."""
    subject = scenario.build(store)
    if not scenario.engine.fresh:
        store.run_id = f"{store.run_id}-{store.id}"
    if plan.ledger is None:
        plan.ledger = EffectLedger()
    return Drive(scenario, store, subject, plan), Cell(tuple(plan.crashes), store.run_id, plan.ledger)


def _take_up(fork: Fork, drive: Drive, cell: Cell) -> None:
    """Go on where the first crash left things."""
    drive.store.journal = fork.journal.left_behind()
    drive.store.set_clock(fork.now)
    drive.plan.fired.append((cell.crashes[0], fork.point))
    drive.sent = fork.sent
    cell.ledger.entries = fork.ledger[: fork.noted]
    cell.ledger.crashed(fork.point)
    cell.traces.append(fork.trace[: fork.passed])
    cell.before.append(Snapshot.of_journal(drive.store.journal))


async def live(drive: Drive, cell: Cell) -> bool:
    """One life of the process; whether it ended in a crash."""
    plan, deaths = drive.plan, len(drive.plan.fired)
    plan.revive()
    others = asyncio.all_tasks()
    backend = drive.scenario.engine.open(drive.scenario.all_functions(drive.subject), drive.store)
    backend.probe = plan
    with ExitStack() as always:
        always.callback(lambda: cell.traces.append(list(plan.trace)))
        try:
            async with backend:
                await asyncio.wait_for(_to_the_end(drive, backend, cell), drive.scenario.deadline)
        except CrashSignal:
            pass
        except TimeoutError:
            cell.trouble = f"the run did not end within {drive.scenario.deadline:g} seconds"
        finally:
            await _drop_tasks(others)
    crashed = len(plan.fired) > deaths
    if crashed and drive.scenario.engine.journal is not None:
        cell.before.append(Snapshot.of_journal(drive.scenario.engine.journal(drive.store)))
    return crashed


async def _to_the_end(drive: Drive, backend: Backend, cell: Cell) -> None:
    drive.run = run = await backend.start(drive.subject.function, drive.scenario.data, run_id=drive.store.run_id)
    while True:
        if isinstance(backend, ReplayBackend):
            await backend.drain()
        await run.refresh()
        if run.status.final:
            break
        if await _waits(run) and drive.sent < len(drive.scenario.events):
            await backend.send(_with_id(drive.scenario.events[drive.sent], drive.sent))
            drive.sent += 1
        elif isinstance(backend, ReplayBackend):
            cell.trouble = await _stuck(run)
            return
        else:
            await asyncio.sleep(0.02)
    cell.output, cell.error = run.view.output, run.view.error
    if run.status is RunStatus.COMPLETED:
        cell.value = await run.result()
    if drive.scenario.engine.journal is None:
        drive.snapshot = await Snapshot.of_backend(backend, run.id)


def _with_id(event: Event, number: int) -> Event:
    return event if event.id else event.model_copy(update={"id": f"crash-test-event-{number}"})


async def _waits(run: Run[Any]) -> bool:
    last = {record.key: record for record in await run.history()}
    return any(record.kind == "wait_for_event" and not record.final for record in last.values())


async def _stuck(run: Run[Any]) -> str:
    last = {record.key: record for record in await run.history()}
    waits = [f"{record.key!r} for {record.name!r}" for record in last.values() if not record.final and record.key]
    what = f"; it waits at {', '.join(waits)}" if waits else ""
    return f"the run will never end: nothing runs and no timer is set{what}. Give what it waits for as events=[...]"


async def _drop_tasks(others: set[asyncio.Task[Any]]) -> None:
    """Do what the end of a process does to tasks that user code left behind."""
    for _ in range(3):  # a task may make another one while it is cancelled
        left = asyncio.all_tasks() - others - {asyncio.current_task()}
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1)


async def _look(drive: Drive, cell: Cell) -> None:
    """Read what is there in the end."""
    engine = drive.scenario.engine
    if engine.journal is not None:
        cell.after = Snapshot.of_journal(engine.journal(drive.store))
    elif drive.snapshot is not None:
        cell.after = drive.snapshot
    cell.state = await drive.scenario.look(drive.subject)
