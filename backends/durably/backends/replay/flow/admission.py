"""Admission: whether a new run begins now, later or not at all, by the rules of its function.

A run passes four stages: limits, which drop it; the debounce, which holds it back; the singleton, which may let it
stand in line; the throttle, which holds it back. Everything happens in a transaction of the journal, so that it holds
for all workers, and a crash leaves nothing half done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, TypeVar

from durably.backends.replay.flow.rules import Limit, Plan, Quiet, Turn, gate_of
from durably.backends.replay.flow.store import Entry, FlowStore

__all__ = ["Admission", "Effects", "Runs", "Verdict"]

Stage = Literal["debounce", "singleton", "throttle"]

_NEXT: dict[Stage, Stage | None] = {"debounce": "singleton", "singleton": "throttle", "throttle": None}


class Effects(Protocol):
    """What a transaction did, for the engine to act on. Admission only hands it on."""

    scheduled: float | None
    claimable: bool


E = TypeVar("E", bound=Effects)
Acts = TypeVar("Acts", bound=Effects, contravariant=True)


class Runs(Protocol[Acts]):
    """The runs of a journal, as admission acts on them within a transaction."""

    def live_singletons(self, function: str, singleton: str) -> Sequence[str]:
        """The live runs that have a singleton key; oldest first."""
        ...

    def end_cancelled(self, run_id: str, now: float, changes: Acts) -> None:
        """End a live run as cancelled."""
        ...

    def end_skipped(self, run_id: str, now: float, changes: Acts) -> None:
        """End a run that was held back as skipped."""
        ...

    def place(self, run_id: str, singleton: str | None, *, begins: bool) -> None:
        """Give a run that was held back its singleton key, and let it begin or wait on."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a run.

    Attributes:
        outcome: Whether it begins, is held back or is dropped.
        held: What is remembered of a run that is held back.
        singleton: Its singleton key, once it counts as the live run of that.
    """

    outcome: Literal["begins", "held", "skipped"]
    held: Entry | None = None
    singleton: str | None = None


class Admission(Generic[E]):
    """Applies the rules.

    Args:
        runs: The runs.
        store: What the rules remember; without it only the singleton modes cancel and skip are there.
    """

    def __init__(self, runs: Runs[E], store: FlowStore | None) -> None:
        self._runs = runs
        self._store = store

    @property
    def store(self) -> FlowStore:
        """What the rules remember."""
        assert self._store is not None, "a backend without a flow store refuses the functions that need one"
        return self._store

    def arrive(self, run_id: str, plan: Plan, now: float, changes: E) -> Verdict:
        """Decide on a new run, which is not stored yet."""
        if plan.limits or plan.quiet or plan.turn:
            self.deliver(now, changes)  # what was due before this run came goes before it
        if not self._within(run_id, plan.limits, now):
            return Verdict("skipped")
        return self._pass("debounce", run_id, plan, now, changes)

    def deliver(self, now: float, changes: E) -> None:
        """Let the runs go on whose time has come."""
        if self._store is None:
            return
        self.forget(now)
        for entry in self.store.due("held", now):
            self._go_on(entry, now, changes)

    def left(self, function: str, singleton: str, now: float, changes: E) -> None:
        """A run has ended that had a singleton key: the next one in line goes on."""
        if self._store is None:
            return
        line = self.store.list("held", gate_of("singleton", function, singleton), 1)
        if line and not self._runs.live_singletons(function, singleton):
            self._go_on(line[0], now, changes)

    def forget(self, now: float) -> None:
        """Drop what no rule needs any more."""
        for kind in ("start", "throttle"):
            for entry in self.store.due(kind, now):
                self.store.drop(entry.kind, entry.id)

    # -- the stages

    def _pass(self, stage: Stage | None, run_id: str, plan: Plan, now: float, changes: E) -> Verdict:
        """Take a run through a stage and those behind it."""
        singleton = None
        if stage == "debounce":
            if plan.quiet is not None:
                return Verdict("held", self._debounced(run_id, plan, plan.quiet, now, changes))
            stage = "singleton"
        if stage == "singleton":
            outcome = self._line_up(plan, now, changes)
            if outcome != "begins":
                held = self._held("singleton", run_id, plan, plan.line.gate if plan.line else "", None)
                return Verdict(outcome, held if outcome == "held" else None)
            stage = "throttle"
        if plan.line is not None:
            singleton = plan.line.key
        if stage == "throttle" and plan.turn is not None:
            turn = self._throttled(run_id, plan, plan.turn, now, changes)
            if turn is not None:
                return Verdict("held", turn, singleton)
        return Verdict("begins", None, singleton)

    def _go_on(self, entry: Entry, now: float, changes: E) -> None:
        """Take a run that was held back through the stages behind the one that held it."""
        self.store.drop("held", entry.id)
        plan = Plan.from_data(entry.value["plan"])
        verdict = self._pass(_NEXT[entry.value["stage"]], entry.id, plan, now, changes)
        if verdict.outcome == "skipped":
            self._runs.end_skipped(entry.id, now, changes)
            return
        if verdict.held is not None:
            self.store.put(verdict.held)
        else:
            changes.claimable = True
        self._runs.place(entry.id, verdict.singleton, begins=verdict.held is None)

    def _within(self, run_id: str, limits: Sequence[Limit], now: float) -> bool:
        """Whether a run is within all limits; if so, it counts."""
        if any(self.store.count("start", each.gate) >= each.limit for each in limits):
            return False
        for each in limits:
            self.store.put(Entry(kind="start", id=f"{each.gate} {run_id}", gate=each.gate, due=now + each.period))
        return True

    def _debounced(self, run_id: str, plan: Plan, quiet: Quiet, now: float, changes: E) -> Entry:
        """Hold a run back in the place of the one before it, which is dropped."""
        since = now
        for before in self.store.list("held", quiet.gate):
            earlier = Plan.from_data(before.value["plan"]).quiet
            since = now if earlier is None or earlier.since is None else earlier.since
            self.store.drop("held", before.id)
            self._runs.end_skipped(before.id, now, changes)
        due = now + quiet.period
        if quiet.timeout is not None:
            due = min(due, since + quiet.timeout)
        plan = replace(plan, quiet=replace(quiet, since=since))
        return self._held("debounce", run_id, plan, quiet.gate, due, changes)

    def _line_up(self, plan: Plan, now: float, changes: E) -> Literal["begins", "held", "skipped"]:
        """Apply the rule of one live run for a key."""
        line = plan.line
        if line is None:
            return "begins"
        waiting = self._store.list("held", line.gate) if self._store is not None else []
        live = self._runs.live_singletons(plan.function, line.key)
        if line.mode == "cancel":
            # Those in line first: the end of a live run would let the next of them begin.
            for other in (*(each.id for each in waiting), *live):
                self._runs.end_cancelled(other, now, changes)
            return "begins"
        if not live and not waiting:
            return "begins"
        return "skipped" if line.mode == "skip" else "held"

    def _throttled(self, run_id: str, plan: Plan, turn: Turn, now: float, changes: E) -> Entry | None:
        """Hold a run back until its turn; ``None`` if that is now."""
        state = self.store.find("throttle", turn.gate)
        after = now if state is None else max(state.value, now)
        due = max(now, after - (turn.at_once - 1) * turn.interval)
        following = after + turn.interval
        self.store.put(Entry(kind="throttle", id=turn.gate, gate=turn.gate, due=following, value=following))
        if due <= now:
            return None
        held = self._held("throttle", run_id, plan, turn.gate, due, changes)
        waiting = self.store.list("held", turn.gate)
        if waiting and waiting[-1].rank > held.rank:  # a priority: it takes an earlier turn, and the others later ones
            turns = sorted([each.due or 0.0 for each in waiting] + [due])
            order = sorted([*waiting, held], key=lambda each: each.rank)
            given = {each.id: moment for each, moment in zip(order, turns, strict=True)}
            for each in waiting:
                if given[each.id] != each.due:
                    self.store.put(replace(each, due=given[each.id]))
            held = replace(held, due=given[run_id])
            changes.scheduled = min(changes.scheduled or turns[0], turns[0])
        return held

    def _held(
        self, stage: Stage, run_id: str, plan: Plan, gate: str, due: float | None, changes: E | None = None
    ) -> Entry:
        if due is not None and changes is not None:
            changes.scheduled = min(due, changes.scheduled or due)
        value = {"stage": stage, "plan": plan.to_data()}
        return Entry(kind="held", id=run_id, gate=gate, rank=plan.rank, due=due, value=value)
