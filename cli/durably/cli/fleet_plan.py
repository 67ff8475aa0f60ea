"""How many machines a fleet needs: what one recorded run costs, times the runs of a day.

Owns the arithmetic. Each number says how it was come by. The costs of a step are measured
(`python -m tests.benchmarks.cpu`, docs/fleet.md); what an engine's server takes is what its makers say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from durably.core.history import History, StepRecord

__all__ = ["ENGINES", "Costs", "Need", "RunCost", "cost_of", "plan"]

DAY = 86_400.0

MOST_STEPS = 999
"""How many steps a run may have on Inngest. See docs/inngest.md."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What one run comes to, with the runs that it waits for.

    Attributes:
        runs: How many runs that is.
        steps: Steps that have ended.
        invokes: Those of them that called another run.
        waits: Those of them that waited for an event.
        sleeps: Those of them that waited for a moment.
        events: Those of them that sent events.
        retries: Attempts that were made again.
        record_bytes: All records, as JSON.
        body_seconds: How long bodies ran, taken together.
        inngest_steps: How many steps it would have on Inngest, which counts its own.
        largest: Those of the run that has most of them.
    """

    runs: int = 0
    steps: int = 0
    invokes: int = 0
    waits: int = 0
    sleeps: int = 0
    events: int = 0
    retries: int = 0
    record_bytes: int = 0
    body_seconds: float = 0.0
    inngest_steps: int = 0
    largest: int = 0


def cost_of(histories: Iterable[History]) -> RunCost:
    """Count what some recorded runs came to, taken together."""
    found = list(histories)
    records = [record for history in found for record in history]
    ended = [record for record in records if record.final and record.key]
    kinds = [record.kind for record in ended]
    on_inngest = [sum(map(_steps_on_inngest, history)) for history in found]
    return RunCost(
        runs=len(found),
        steps=len(ended),
        invokes=kinds.count("invoke"),
        waits=kinds.count("wait_for_event"),
        sleeps=kinds.count("sleep"),
        events=kinds.count("send_event"),
        retries=sum(record.status == "retrying" for record in records),
        record_bytes=sum(len(record.to_json().encode()) for record in records),
        body_seconds=sum(record.took for record in records if record.kind == "step"),
        inngest_steps=sum(on_inngest),
        largest=max(on_inngest, default=0),
    )


def _steps_on_inngest(record: StepRecord) -> int:
    """How many steps Inngest has for what a record says: what begins, what is waited for, and what comes of it."""
    match record.kind, record.status:
        case _, "retrying":
            return 2
        case "sleep", "completed":
            return 3
        case "invoke" | "wait_for_event", "completed" | "failed":
            return 2
        case "step", "started":  # a body that must not run twice
            return 1
        case "step" | "send_event", "completed" | "failed":
            return 1
    return 0


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What an engine costs, and takes.

    Attributes:
        cpu: Seconds of CPU that a step takes of a worker.
        byte_factor: How many bytes the engine keeps for each byte of records.
        step_bytes: ... and besides that for each step.
        server_steps: Steps a second that one unit of the server takes, beyond which there must be another.
        unit: What that unit is.
        bodies: How many bodies one worker runs at a time.
    """

    cpu: float
    byte_factor: float
    step_bytes: int
    server_steps: float
    unit: str
    bodies: int = 100

    @property
    def worker_steps(self) -> float:
        """Steps a second of one worker that leaves a third of its core to bodies."""
        return 2 / 3 / self.cpu


ENGINES: dict[str, Costs] = {
    "sqlite": Costs(cpu=0.0011, byte_factor=1.4, step_bytes=40, server_steps=1_000, unit="databases"),
    "temporal": Costs(cpu=0.0057, byte_factor=1.1, step_bytes=900, server_steps=200, unit="task queue partitions"),
    "inngest": Costs(cpu=0.0057, byte_factor=1.1, step_bytes=300, server_steps=200, unit="servers"),
}
"""See docs/fleet.md, where each number is from."""


@dataclass(frozen=True)
class Need:
    """One line of a plan: what is needed, how much of it, and how that was come by."""

    what: str
    amount: float
    because: str

    @property
    def spelled(self) -> str:
        """The amount as it is shown."""
        return f"{self.amount:,.0f}" if self.amount >= 10 or self.amount == int(self.amount) else f"{self.amount:,.2f}"


def plan(engine: str, cost: RunCost, runs_per_day: float, peak: float = 4.0) -> list[Need]:
    """What a fleet needs.

    Args:
        engine: One of `ENGINES`.
        cost: What one run comes to.
        runs_per_day: How many there are a day.
        peak: The ratio of the busiest minutes to the mean.
    """
    costs = ENGINES[engine]
    steps_a_day = runs_per_day * (cost.steps + 2 * cost.runs)  # each run has a beginning and an end
    rate = steps_a_day / DAY * peak
    at_once = runs_per_day / DAY * peak * cost.body_seconds
    by_cpu, by_bodies = rate / costs.worker_steps, at_once / costs.bodies
    kept = runs_per_day * (cost.record_bytes * costs.byte_factor + cost.steps * costs.step_bytes)
    return [
        Need("steps a second", rate, f"{steps_a_day:,.0f} a day / 86,400 x {peak:g} at the peak"),
        Need("bodies at a time", at_once, f"{cost.body_seconds:.2f} s of bodies a run at the peak"),
        Need(
            "workers",
            max(2, math.ceil(max(by_cpu, by_bodies))),
            f"the most of: {rate:,.1f} steps/s / {costs.worker_steps:,.0f} of one worker (2/3 s / "
            f"{costs.cpu * 1e3:g} ms of CPU a step), {at_once:,.1f} bodies / {costs.bodies}, "
            "and 2, so that one may stop",
        ),
        Need(
            costs.unit,
            max(1, math.ceil(rate / costs.server_steps)),
            f"{rate:,.1f} steps/s / {costs.server_steps:,.0f} of one",
        ),
        Need(
            "GB a day",
            kept / 1e9,
            f"{runs_per_day:,.0f} runs x ({cost.record_bytes:,} bytes of records x {costs.byte_factor:g} + "
            f"{cost.steps} steps x {costs.step_bytes} bytes)",
        ),
        *_billed(engine, cost, runs_per_day),
    ]


def _billed(engine: str, cost: RunCost, runs_per_day: float) -> list[Need]:
    """What the engine's makers count."""
    if engine == "temporal":
        # A run is an action, a step is one, an invoke two, a retry one; a wait an activity and a signal.
        a_run = cost.runs + cost.steps + cost.invokes + cost.waits + cost.sleeps + cost.retries + 2 * cost.events
        because = f"{a_run} a run: runs, steps, retries; an invoke and a wait count twice, an event three times"
        return [Need("actions a day", runs_per_day * a_run, because)]
    if engine == "inngest":
        a_run = cost.inngest_steps + cost.runs
        fits = "" if cost.largest <= MOST_STEPS else ": too many; give parts of the work to runs of their own"
        return [
            Need("requests a day", runs_per_day * a_run, f"{a_run} a run: one for each step on Inngest, one to end"),
            Need("steps on Inngest", cost.largest, f"the largest run; a run takes {MOST_STEPS}{fits}"),
        ]
    return []
