"""The crash matrix: an experiment for each cell, held to the laws. Owns which crashes to try, not how one is made."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from durably.core import Event, Function
from durably.core.errors import ConcurrentStepError
from durably.core.steps import Point
from durably.testing.crash.ambient_inputs import OFFSETS
from durably.testing.crash.determinism import NotDeterministicError, differ, explain, find_causes
from durably.testing.crash.engines import Engine, OpenBackend, Store, find_engine
from durably.testing.crash.experiment import Experiment, run_experiment
from durably.testing.crash.faults import Crash, CrashMode, PointNotReachedError, never_reached
from durably.testing.crash.guarantees import GuaranteeCount
from durably.testing.crash.law_checks import Judge
from durably.testing.crash.patches import located, patch_of_gather
from durably.testing.crash.process_runner import ProcessRunner
from durably.testing.crash.report import CellReport, Report
from durably.testing.crash.scenario import Scenario
from durably.testing.crash.selection import Planned, evenly, find_crashes, is_wanted, one_of_each_kind, parse_repro
from durably.testing.crash.shared_lives import SharedLives, can_share_lives
from durably.testing.crash.step_lines import StepLines
from durably.testing.laws import no_secrets, unseen_bodies
from durably.testing.snapshot import RunLog

__all__ = ["PAIR_BOUND", "Progress", "crash_matrix", "list_points"]

PAIR_BOUND = 60
"""Up to this many points, every pair is tried; beyond, an even sample."""

SAMPLE = 3600
"""About how many cells that sample has, for each further crash."""

Progress = Callable[[int, int, str], None]
"""Told how many cells are done, how many are known so far, and the label of the next one."""

RunExperiment = Callable[..., Awaitable[Experiment]]


async def crash_matrix(
    target: Function[Any, Any] | Callable[..., Any],
    data: Any = None,
    *,
    backend: str | Engine | OpenBackend | None = None,
    crashes: int = 1,
    points: str | Iterable[str] = "*",
    mode: CrashMode = "inproc",
    functions: Sequence[Function[Any, Any]] = (),
    state: Callable[[Any], Any] | None = None,
    events: Sequence[Event] = (),
    secrets: Sequence[str] = (),
    first: str | None = None,
    since: str | None = None,
    repro: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    deadline: float = 30.0,
) -> Report:
    """Crash a function at every point, and check that each run recovers.

    It first runs the function without a crash, a few times on different days. Then it runs it once for each point it
    passed, crashes it there and restarts it. It checks every run against the laws (``durably.testing.laws``).

    Args:
        target: A function or an agent. Or a factory, called for each experiment, that makes one along with the world it
            acts on: ``() -> agent`` or ``() -> (agent, world)``. A world that must outlive its process
            (``mode="sigkill"``) is kept in files: such a factory takes one argument, the experiment's directory.
        data: The input.
        backend: ``"memory"``, ``"sqlite"``, the name of an engine in ``ENGINES``, or a function
            ``(functions, store) -> backend`` that is called for each life. Left out, memory (sqlite for sigkill).
        crashes: How many crashes to put into one run at most: 1, 2 for pairs too, and so on.
        points: Which points: names (``"after_effect"``) or ``step/name``, with ``*`` for anything. A step matches by
            its id, its key, or its key without the branches.
        mode: ``"inproc"`` drops the event loop's tasks; ``"sigkill"`` kills a process, once for each kind of point
            of each step id.
        functions: Further functions the backend must serve.
        state: Reads the world at the end: ``(world) -> data``. Two worlds are the same if their data is.
        events: The events that answer waits: one is sent each time the run waits and nothing else is left to do.
        secrets: Texts that must not be in any record.
        first: The label of the first crash; only cells that begin with it are run.
        since: The key of a step of the function: only points from there on are crashed at.
        repro: Labels of one cell, as a failure prints them; only that cell is run.
        seed: Fixes the order of concurrent branches, on the memory backend; try a few.
        progress: Called before each cell.
        deadline: Seconds one life may take. Time in which the process is stopped, or waits for a busy machine, does not
            count.

    Raises:
        NotDeterministicError: If two runs without a crash differ (it names the first difference), or if the code begins
            two steps of one branch at the same time.
        PointNotReachedError: If something in ``points`` or ``repro`` was never passed.
        DefinitionError: If ``target`` is none of these, or cannot be found by another process.
        ValueError: If an option has a value out of range.
    """
    if mode not in get_args(CrashMode):
        raise ValueError(f"mode={mode!r}: write one of {', '.join(map(repr, get_args(CrashMode)))}")
    if crashes < 1:
        raise ValueError(f"crashes={crashes}: give the number of crashes to put into one run, 1 or more")
    scenario = Scenario(
        target=target,
        data=data,
        engine=find_engine(backend or ("sqlite" if mode == "sigkill" else "memory")),
        functions=tuple(functions),
        state=state,
        events=tuple(events),
        secrets=tuple(secrets),
        seed=seed,
        deadline=deadline,
    )
    wanted = (points,) if isinstance(points, str) else tuple(points)
    if mode == "inproc":
        return await _Matrix(scenario, run_experiment, wanted, mode, progress, first, since).run(crashes, repro)
    async with ProcessRunner(scenario) as runner:
        return await _Matrix(scenario, runner.run_experiment, wanted, mode, progress, first, since).run(crashes, repro)


async def list_points(
    target: Function[Any, Any] | Callable[..., Any],
    data: Any = None,
    *,
    points: str | Iterable[str] = "*",
    mode: CrashMode = "inproc",
    backend: str | Engine | OpenBackend | None = None,
    functions: Sequence[Function[Any, Any]] = (),
    events: Sequence[Event] = (),
    since: str | None = None,
) -> list[str]:
    """The labels of the crashes that a matrix begins with. Arguments as for :func:`crash_matrix`."""
    engine = backend if backend is not None and not isinstance(backend, str) else "memory"
    scenario = Scenario(
        target=target, data=data, engine=find_engine(engine), functions=tuple(functions), events=tuple(events)
    )
    wanted = (points,) if isinstance(points, str) else tuple(points)
    return await _Matrix(scenario, run_experiment, wanted, mode, None, None, since).labels()


@dataclass(slots=True)
class _Matrix:
    scenario: Scenario
    run_experiment: RunExperiment
    points: tuple[str, ...]
    mode: CrashMode
    progress: Progress | None
    first: str | None
    since: str | None
    shared: SharedLives | None = None
    in_full: set[tuple[Crash, ...]] = field(default_factory=set)
    baseline: Experiment = field(init=False)
    judge: Judge = field(init=False)
    report: Report = field(init=False)
    guarantees: GuaranteeCount = field(default_factory=GuaranteeCount)
    lines: StepLines = field(default_factory=StepLines)

    async def run(self, crashes: int, repro: str | None) -> Report:
        started = time.perf_counter()
        self.baseline = await self._without_crash()
        self.judge = Judge(self.baseline)
        self.report = Report.of_baseline(self.baseline, self.scenario.engine.name, self.mode)
        self.guarantees.add(self.baseline, "")
        self._add_cell(self.baseline, "no crash")
        if repro is not None:
            await self._reproduce(parse_repro(repro, self.report.function))
        else:
            if self.mode == "inproc" and self.scenario.engine.journal is not None:
                await self._replay_after_every_step()
            await self._crash_everywhere(crashes)
        self.report.steps = self.guarantees.steps(self.baseline, self.lines.functions)
        self.report.seconds = time.perf_counter() - started
        return self.report

    def _functions(self) -> dict[str, Function[Any, Any]]:
        """What runs, by id: the backend knows which functions call which."""
        with Store() as store:
            made = self.scenario.all_functions(self.scenario.build(store))
            return dict(self.scenario.engine.open(made, store).functions)

    # -- without a crash

    async def _without_crash(self) -> Experiment:
        self.lines.functions = self._functions()
        baseline = await self._ended(also=self.lines)
        hasty = [log for log in baseline.after.runs.values() if _is_hasty(log)]
        if hasty:
            raise NotDeterministicError(
                f"run {hasty[0].id!r} begins two steps of one branch at the same time, so which comes first would "
                "depend on chance. Write step.gather(lambda: step.run(...), lambda: step.run(...)) instead of "
                "asyncio.gather.\n"
                f"  patch: {patch_of_gather(hasty[0].history)}"
            )
        unseen = unseen_bodies(baseline.ledger, baseline.after)
        if unseen:
            raise PointNotReachedError(
                f"step {unseen[0]!r} is recorded, but the {self.scenario.engine.name} backend never reported the point "
                "'before_body' for it: without that, nothing can be said about how often bodies run"
            )
        for shift in range(1, len(OFFSETS)):
            again = await self._ended(shift=shift)
            difference = differ(baseline, again)
            if difference is not None:
                inproc = self.mode == "inproc"
                causes = await find_causes(self.scenario, baseline, shift, self.lines.functions) if inproc else []
                line = self.lines.line(baseline.history.function, difference.key)
                raise NotDeterministicError(explain(difference, causes, line))
        return baseline

    async def _ended(self, **options: Any) -> Experiment:
        """An experiment without a crash, which must come to its end."""
        experiment = await self.run_experiment(self.scenario, **options)
        if experiment.trouble:
            raise NotDeterministicError(f"without any crash, {experiment.trouble}")
        return experiment

    async def _replay_after_every_step(self) -> None:
        experiment = await self.run_experiment(self.scenario, evict=True)
        self._add_cell(experiment, "replayed after every step")

    # -- with crashes

    async def _crash_everywhere(self, crashes: int) -> None:
        """Crash once at each point, then, up to the number asked for, again after each of these crashes."""
        front = self._first_crashes()
        if self.first is not None:
            (first,) = parse_repro(self.first, self.report.function)
            front = [each for each in front if each[1] == first] or [((), first)]
        singles = len(front)
        if singles > PAIR_BOUND and self.mode == "inproc" and can_share_lives(self.scenario):
            self.shared = SharedLives(self.scenario, crashes)
        for depth in range(1, crashes + 1):
            front = await self._run_depth(front, depth < crashes, everything=depth == 1 and singles <= PAIR_BOUND)

    def _first_crashes(self) -> list[Planned]:
        trace = self.baseline.traces[0]
        front: list[Planned] = [((), crash) for crash in self._crashes_in(trace)]
        self._check_points_are_passed([crash for _, crash in front])
        if self.since is not None:
            front = [each for each in front if each[1] in self._crashes_since(trace)]
        return one_of_each_kind(front) if self.mode == "sigkill" else front

    async def labels(self) -> list[str]:
        """What the first level would try."""
        self.baseline = await self._without_crash()
        self.report = Report.of_baseline(self.baseline, self.scenario.engine.name, self.mode)
        return [self._label([crash]) for _, crash in self._first_crashes()]

    async def _run_depth(self, front: list[Planned], go_on: bool, everything: bool) -> list[Planned]:
        """Run each plan of one depth; the plans of the next depth, with one more crash each, if it is to go on."""
        following: list[Planned] = []
        quota = SAMPLE // max(1, len(front))
        known, late = {crash for _, crash in front}, set[Crash]()
        self.in_full = {(*before, crash) for before, crash in one_of_each_kind(front)}
        for before, crash in front:  # grows while it is gone through
            plan = (*before, crash)
            experiment = await self._run_plan(plan, late=crash in late)
            looked_at = plan not in self.in_full and self.shared is not None  # a life whose points are known
            if not before and self.first is None and self.since is None and not looked_at:
                for another in self._crashes_in(
                    experiment.traces[0]
                ):  # another order of concurrent branches may pass others
                    if another not in known and self.mode == "inproc":
                        known.add(another)
                        late.add(another)
                        front.append(((), another))
            if go_on and len(experiment.traces) > len(plan):
                further = self._crashes_in(experiment.traces[len(plan)])
                taken = further if everything else evenly(further, max(1, quota))
                self.report.left_out += len(further) - len(taken)
                following += [(plan, each) for each in taken]
            self.report.known = len(self.report.cells) + len(front) + len(following)
        return following

    async def _run_plan(self, plan: tuple[Crash, ...], *, late: bool = False) -> Experiment:
        label = self._label(plan)
        if self.progress is not None:
            self.progress(len(self.report.cells), max(self.report.known, len(self.report.cells) + 1), label)
        experiment = await self._experiment(plan)
        for _ in range(2):
            if len(experiment.fired) == len(plan):
                break
            # Threads in another order may not have passed the point.
            experiment = await self.run_experiment(self.scenario, plan)
        if late and len(experiment.fired) < len(plan) and self.scenario.engine.journal is None:
            # A server's own time-outs, on a busy machine, let a run pass it in one experiment and in no other.
            self.report.left_out += 1
        else:
            self._add_cell(experiment, label)
        return experiment

    async def _experiment(self, plan: tuple[Crash, ...]) -> Experiment:
        if self.shared is None or plan in self.in_full:
            return await self.run_experiment(self.scenario, plan)
        return await self.shared.run_experiment(plan)

    async def _reproduce(self, plan: tuple[Crash, ...]) -> None:
        experiment = await self._run_plan(plan)
        if len(experiment.fired) < len(plan):
            missed = plan[len(experiment.fired)]
            raise PointNotReachedError(never_reached(missed.label, experiment.traces[-1]))

    def _add_cell(self, experiment: Experiment, label: str) -> None:
        """Hold an experiment to the laws, and put it into the report."""
        violations = self.judge.broken_laws(experiment) + list(no_secrets(experiment.after, self.scenario.secrets))
        violations = [located(each, self.lines, self.report.function) for each in violations]
        self.guarantees.add(experiment, label)
        self.report.cells.append(CellReport.of(experiment, self.baseline, label, violations))

    def _label(self, plan: Iterable[Crash]) -> str:
        return ", ".join(crash.label.removeprefix(f"{self.report.function}::") for crash in plan)

    def _crashes_in(self, trace: Iterable[Point]) -> list[Crash]:
        return [crash for crash in find_crashes(trace) if is_wanted(crash, self.points)]

    def _crashes_since(self, trace: Sequence[Point]) -> set[Crash]:
        """The crashes from where a step was asked for."""
        places: list[tuple[str, str | None]] = [(point.function, point.key) for point in trace]
        step = (self.report.function, self.since)
        if step not in places:
            raise PointNotReachedError(never_reached(f"{self.since}/before_start", trace))
        earlier = set(find_crashes(trace[: places.index(step)]))
        return {crash for crash in find_crashes(trace) if crash not in earlier}

    def _check_points_are_passed(self, found: list[Crash]) -> None:
        for pattern in self.points:
            if not any(is_wanted(crash, (pattern,)) for crash in found):
                raise PointNotReachedError(never_reached(pattern, self.baseline.traces[0]))


def _is_hasty(log: RunLog) -> bool:
    error = log.history.records[-1].error
    return error is not None and error.get("type") == ConcurrentStepError.__name__
