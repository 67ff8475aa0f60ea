"""An experiment: a run under planned crashes, started again after each, and looked at from outside.

Owns how one is carried out in this process. What must hold of it stands in ``law_checks.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from durably.backends.replay.backend import ReplayBackend
from durably.core import Backend, Event, Run
from durably.core.engine import FORGOTTEN_ATTEMPTS
from durably.core.history import History
from durably.core.run_view import RunStatus
from durably.core.steps import Point, Probe
from durably.testing.crash.ambient_inputs import AmbientInputs
from durably.testing.crash.engines import Store
from durably.testing.crash.faults import Crash, CrashSignal, FaultPlan, chain
from durably.testing.crash.scenario import Scenario, Subject
from durably.testing.ledger import EffectLedger
from durably.testing.snapshot import Snapshot

__all__ = ["Experiment", "ExperimentState", "begin", "read_end", "run_experiment", "run_life", "world_at_end"]

TICKS = 20
"""Into how many sleeps the time that a life may take is divided."""


@dataclass(slots=True)
class Experiment:
    """What was seen of a run under planned crashes.

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
        trouble: Why the run could not be brought to its end; empty if it could.
        committed: What a commit is called in a timeline.
        forgets_attempts: Whether the history may lack failed attempts that another one followed.
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
    committed: str = "recorded"
    forgets_attempts: bool = False

    @property
    def history(self) -> History:
        """The records of the run that was started."""
        log = self.after.runs.get(self.run_id)
        return History(()) if log is None else log.history


@dataclass(slots=True)
class ExperimentState:
    """What goes on from one life of an experiment to the next.

    Attributes:
        scenario: What is run.
        store: What outlives a crash.
        subject: The function and its world.
        plan: The crashes to come.
        also: A further probe, which looks on after the plan.
        sent: How many events the outside world has answered with.
        snapshot: What a backend showed at the end whose journal cannot be read.
    """

    scenario: Scenario
    store: Store
    subject: Subject
    plan: FaultPlan
    also: Probe | None = None
    sent: int = 0
    snapshot: Snapshot | None = None


async def run_experiment(
    scenario: Scenario,
    crashes: Sequence[Crash] = (),
    *,
    evict: bool = False,
    shift: int = 0,
    ambient: AmbientInputs | None = None,
    also: Probe | None = None,
) -> Experiment:
    """Run one experiment in this process.

    Args:
        scenario: What to run.
        crashes: The crashes, in order.
        evict: Whether to replay the run from the start after each step.
        shift: Which values ambient inputs have in the first life; they change with each further one.
        ambient: Values for all lives instead.
        also: A further probe, which looks on after the plan.
    """
    with Store(evict=evict, seed=scenario.seed) as store:
        state, experiment = begin(scenario, store, crashes)
        state.also = also
        subject = state.subject
        for life in range(len(crashes) + 1):
            if scenario.change is not None:
                state.subject = scenario.change(subject, life)
            with (ambient or AmbientInputs.of_life(shift + life)).applied(scenario.all_functions(subject)):
                crashed = await run_life(state, experiment)
            if not crashed:
                break
        experiment.fired = state.plan.fired
        await read_end(state, experiment)
        return experiment


def begin(scenario: Scenario, store: Store, crashes: Sequence[Crash] = ()) -> tuple[ExperimentState, Experiment]:
    """Build the subject of an experiment, before its first life."""
    subject = scenario.build(store)
    if not scenario.engine.fresh:
        store.run_id = f"{store.run_id}-{store.id}"
    ledger = EffectLedger()
    plan = FaultPlan(crashes, ledger=ledger)
    return ExperimentState(scenario, store, subject, plan), Experiment(tuple(crashes), store.run_id, ledger)


async def run_life(state: ExperimentState, experiment: Experiment) -> bool:
    """One life of the process; whether it ended in a crash."""
    plan, deaths = state.plan, len(state.plan.fired)
    plan.revive()
    others = asyncio.all_tasks()  # what runs now is not the subject's, and must not be cancelled with it
    backend = state.scenario.engine.open(state.scenario.all_functions(state.subject), state.store)
    backend.probe = plan if state.also is None else chain(plan, state.also)
    experiment.forgets_attempts = FORGOTTEN_ATTEMPTS in backend.capabilities.gaps
    with ExitStack() as always:
        always.callback(lambda: experiment.traces.append(list(plan.trace)))
        try:
            async with backend:
                try:
                    async with _deadline(state.scenario.deadline):
                        await _to_the_end(state, backend, experiment)
                except TimeoutError:
                    experiment.trouble = f"the run did not end within {state.scenario.deadline:g} seconds"
                    backend.drain_timeout = 0.0  # what hangs does not end now either
        except CrashSignal:
            pass
        finally:
            await _drop_tasks(others)
    crashed = len(plan.fired) > deaths
    if crashed and state.scenario.engine.journal is not None:
        experiment.before.append(Snapshot.of_journal(state.scenario.engine.journal(state.store)))
    return crashed


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Raise ``TimeoutError`` after so many seconds in which this process had its turns.

    They are counted in short sleeps: time in which the process was stopped, or waited for a busy machine, says nothing
    of whether the run would have ended.
    """
    async with asyncio.timeout(None) as limit:

        async def count() -> None:
            for _ in range(TICKS):
                await asyncio.sleep(seconds / TICKS)
            limit.reschedule(asyncio.get_running_loop().time())

        counting = asyncio.create_task(count())
        try:
            yield
        finally:
            counting.cancel()


async def _to_the_end(state: ExperimentState, backend: Backend, experiment: Experiment) -> None:
    run = await backend.start(state.subject.function, state.scenario.data, run_id=state.store.run_id)
    while True:
        if isinstance(backend, ReplayBackend):
            # A virtual clock jumps only while somebody waits for it; draining is what lets sleeps and retries pass.
            await backend.drain()
        await run.refresh()
        if run.status.final:
            break
        if await _waits(run) and state.sent < len(state.scenario.events):
            await backend.send(_with_id(state.scenario.events[state.sent], state.sent))
            state.sent += 1
        elif isinstance(backend, ReplayBackend):
            experiment.trouble = await _stuck(run)
            return
        else:
            await asyncio.sleep(0.02)  # an engine with a server of its own: ask again
    experiment.output, experiment.error = run.view.output, run.view.error
    if run.status is RunStatus.COMPLETED:
        experiment.value = await run.result()
    if state.scenario.engine.journal is None:
        state.snapshot = await Snapshot.of_backend(backend, run.id)


def _with_id(event: Event, number: int) -> Event:
    # The id is fixed by its place: an answer that was sent right before a crash is not a second one after it.
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


async def read_end(state: ExperimentState, experiment: Experiment) -> None:
    """Read what is there after the last life."""
    engine = state.scenario.engine
    if engine.journal is not None:
        experiment.after = Snapshot.of_journal(engine.journal(state.store))
    elif state.snapshot is not None:
        experiment.after = state.snapshot
    experiment.state = await world_at_end(state, experiment)


async def world_at_end(state: ExperimentState, experiment: Experiment) -> str | None:
    """What the world has come to; nobody can tell what that of an unfinished run must look like."""
    return None if experiment.trouble else await state.scenario.look(state.subject)
