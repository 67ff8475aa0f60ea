"""Shared lives: what a process does once it goes on from a state is run once, for all experiments that get there.

An experiment is then put together of the lives that it leads through. That can be had where nothing but the memory
backend's journal outlives a crash: not for a target with a world of its own, which cannot be copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from durably.backends.memory import MemoryJournal
from durably.core import Function
from durably.core.steps import Point
from durably.testing.crash.ambient_inputs import AmbientInputs
from durably.testing.crash.engines import ENGINES, Store
from durably.testing.crash.experiment import Experiment, ExperimentState, begin, read_end, run_life
from durably.testing.crash.faults import Crash
from durably.testing.crash.scenario import Scenario
from durably.testing.ledger import EffectLedger, Entry
from durably.testing.snapshot import Snapshot

__all__ = ["SharedLives", "can_share_lives"]


def can_share_lives(scenario: Scenario) -> bool:
    """Whether experiments may share their lives."""
    return scenario.engine is ENGINES["memory"] and isinstance(scenario.target, Function) and scenario.state is None


@dataclass(eq=False)
class _State:
    """What is there when a life begins.

    Attributes:
        number: How many crashes came before.
        journal: What the journal holds.
        now: What the clock shows.
        sent: How many events the outside world has answered with.
        life: The life that begins here, once it was run.
    """

    number: int
    journal: MemoryJournal
    now: float
    sent: int
    life: _Life | None = None

    @cached_property
    def snapshot(self) -> Snapshot:
        """What the store holds."""
        return Snapshot.of_journal(self.journal)


@dataclass(slots=True)
class _Life:
    """A life that nothing crashed, and what a crash at each of its points would leave behind.

    Attributes:
        end: The experiment as it ended.
        states: What each point leaves behind.
        noted: How many entries the ledger had by then.
    """

    end: Experiment
    states: list[_State] = field(default_factory=list)
    noted: list[int] = field(default_factory=list)

    @property
    def trace(self) -> list[Point]:
        """The points it passed."""
        return self.end.traces[0]

    @property
    def entries(self) -> list[Entry]:
        """What its ledger noted."""
        return self.end.ledger.entries


class SharedLives:
    """Puts experiments together of lives that were run once.

    Args:
        scenario: What is run.
        crashes: How many crashes an experiment has at most: the lives after that many go on to their end.
    """

    def __init__(self, scenario: Scenario, crashes: int) -> None:
        self._scenario = scenario
        self._crashes = crashes
        self._first = _State(0, MemoryJournal(), 0.0, 0)

    async def run_experiment(self, crashes: Sequence[Crash]) -> Experiment:
        """The experiment with these crashes."""
        state = self._first
        entries: list[Entry] = []
        traces: list[list[Point]] = []
        before: list[Snapshot] = []
        fired: list[tuple[Crash, Point]] = []
        for crash in crashes:
            life = await self._life(state)
            place = _place(crash, life.trace)
            if place is None:
                break
            point = life.trace[place]
            entries += life.entries[: life.noted[place]]
            entries.append(EffectLedger.crash_entry(point, len(fired)))
            traces.append(life.trace[: place + 1])
            fired.append((crash, point))
            state = life.states[place]
            before.append(state.snapshot)
        last = await self._life(state)
        ledger = EffectLedger()
        ledger.entries, ledger.life = [*entries, *last.entries], len(fired)
        return replace(
            last.end,
            crashes=tuple(crashes),
            ledger=ledger,
            fired=fired,
            traces=[*traces, last.trace],
            before=before,
        )

    async def _life(self, state: _State) -> _Life:
        if state.life is None:
            state.life = await self._run(state)
        return state.life

    async def _run(self, begun: _State) -> _Life:
        with Store(seed=self._scenario.seed) as store:
            state, experiment = begin(self._scenario, store)
            experiment.ledger.life = begun.number
            if begun.number:
                store.journal = begun.journal.left_behind()
                store.set_clock(begun.now)
                state.sent = begun.sent
            recorder = _Recorder(state, experiment.ledger, begun.number + 1)
            if begun.number < self._crashes:
                state.also = recorder
            with AmbientInputs.of_life(begun.number).applied(self._scenario.all_functions(state.subject)):
                await run_life(state, experiment)
            await read_end(state, experiment)
            return _Life(experiment, recorder.states, recorder.noted)


def _place(crash: Crash, trace: Sequence[Point]) -> int | None:
    """Where in a life a crash strikes."""
    places: Iterator[int] = (place for place, point in enumerate(trace) if crash.hits(point))
    return next((place for number, place in enumerate(places) if number == crash.occurrence), None)


@dataclass(slots=True)
class _Recorder:
    """A probe that copies the journal at each point, unless nothing in it has changed since the one before."""

    state: ExperimentState
    ledger: EffectLedger
    number: int
    states: list[_State] = field(default_factory=list)
    noted: list[int] = field(default_factory=list)

    def __call__(self, point: Point) -> None:
        store, journal = self.state.store, self.state.store.journal
        assert isinstance(journal, MemoryJournal)
        last = self.states[-1] if self.states else None
        unchanged = last is not None and (last.now, last.sent) == (store.now, self.state.sent)
        if last is None or not unchanged or not journal.holds_the_same_as(last.journal):
            last = _State(self.number, journal.left_behind(), store.now, self.state.sent)
        self.states.append(last)
        self.noted.append(len(self.ledger.entries))
