"""The crash matrix of an agent that is a program of its own."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from durably.core.steps import Point
from durably.testing.crash.determinism import NotDeterministicError
from durably.testing.crash.faults import Crash, PointNotReachedError, never_reached
from durably.testing.crash.guarantees import StepReport
from durably.testing.crash.matrix import Progress
from durably.testing.crash.report import CellReport, Report
from durably.testing.crash.selection import Planned, find_crashes, is_wanted, parse_repro
from durably.testing.foreign.laws import Seen, broken_laws
from durably.testing.foreign.lives import Lives, Program, open_lives
from durably.testing.foreign.watch import LEDGER, TRANSCRIPTS
from durably.testing.ledger import EffectLedger

__all__ = ["foreign_matrix"]


def foreign_matrix(
    start: Program,
    resume: Program,
    *,
    name: str = "agent",
    engine: str = "its own engine",
    state: Callable[[Path], Any] | None = None,
    events: Callable[[Path], Sequence[str]] | None = None,
    crashes: int = 1,
    points: str | Iterable[str] = "*",
    repro: str | None = None,
    restarts: int = 3,
    deadline: float = 60.0,
    progress: Progress | None = None,
) -> Report:
    """Kill an agent of any library at each point that its watched tools pass, resume it, and compare.

    The agent runs twice without a crash; if these runs differ, the test is refused. Then it runs once for each point in
    a separate folder, is killed there by SIGKILL, and is resumed until it ends.

    Args:
        start: How it is started: a command, in which ``{folder}`` stands for the folder of the run and whose standard
            output is the answer; or a function at the top of a module, sync or async, that takes this folder and
            returns the answer as JSON data.
        resume: How it is resumed in another process, in the same form.
        name: Its name in the report.
        engine: The name of its storage, for the report.
        state: Reads the world in the end: ``(folder) -> JSON data``.
        events: The ids of the messages that their receivers got in the end, with repetitions.
        crashes: How many crashes to put into one run at most.
        points: Which points: names (``"after_effect"``), or ``tool/name`` with ``*`` for anything: ``"refund*/*"``.
        repro: Labels of one cell, as a failure prints them; only that cell is run.
        restarts: How often it is resumed when it fails by itself, before it counts as never ending.
        deadline: Seconds that one process may take.
        progress: Told before each cell.

    Returns:
        A report like that of :func:`~durably.testing.crash_matrix`.

    Raises:
        NotDeterministicError: If it fails without a crash, or two runs without a crash differ.
        PointNotReachedError: If no watched tool was called, or something in ``points`` or ``repro`` was never passed.
    """
    wanted = (points,) if isinstance(points, str) else tuple(points)
    report = Report(function=name, backend=engine, mode="sigkill")
    report.reproduce = "foreign_matrix(..., repro={label!r})"
    with closing(open_lives(name, start, resume, deadline)) as lives:
        matrix = _ForeignMatrix(lives, state, events, wanted, restarts, progress, report)
        return matrix.run(crashes, repro)


@dataclass(slots=True)
class _ForeignMatrix:
    lives: Lives
    state: Callable[[Path], Any] | None
    events: Callable[[Path], Sequence[str]] | None
    points: tuple[str, ...]
    restarts: int
    progress: Progress | None
    report: Report
    baseline: Seen = field(init=False)
    executions: dict[str, tuple[int, str]] = field(default_factory=dict)

    def run(self, crashes: int, repro: str | None) -> Report:
        began = time.perf_counter()
        self.baseline = self._without_crash()
        self._add_cell(self.baseline, "no crash")
        if repro is not None:
            self._reproduce(parse_repro(repro, self.lives.name))
        else:
            self._crash_everywhere(crashes)
        self.report.steps = self._steps()
        self.report.seconds = time.perf_counter() - began
        return self.report

    def _without_crash(self) -> Seen:
        first, second = self._run(), self._run()
        for each in (first, second):
            if each.trouble:
                raise NotDeterministicError(f"without any crash, {each.trouble}")
        if not first.traces[0]:
            raise PointNotReachedError(
                "no tool reported that it was called: put @watched on the agent's tools, below its library's own "
                "decorator"
            )
        for what, one, other in (
            ("answer", first.output, second.output),
            ("world", first.state, second.state),
            ("tool calls", _calls(first), _calls(second)),
        ):
            if one != other:
                raise NotDeterministicError(
                    f"two runs without a crash differ, so nothing could be said about one with a crash: the {what} of "
                    f"the first is {one}, of the second {other}. Give the agent a model that answers from a script"
                )
        return first

    def _crash_everywhere(self, crashes: int) -> None:
        front: list[Planned] = [((), crash) for crash in self._crashes_in(self.baseline.traces[0])]
        for pattern in self.points:
            if not any(is_wanted(crash, (pattern,)) for _, crash in front):
                raise PointNotReachedError(never_reached(pattern, self.baseline.traces[0]))
        for depth in range(1, crashes + 1):
            following: list[Planned] = []
            self.report.known = len(self.report.cells) + len(front)
            for before, crash in front:
                plan = (*before, crash)
                found = self._run_plan(plan)
                if depth < crashes and len(found.traces) > len(plan):
                    following += [(plan, each) for each in self._crashes_in(found.traces[len(plan)])]
            front = following

    def _crashes_in(self, trace: Iterable[Point]) -> list[Crash]:
        return [crash for crash in find_crashes(trace) if is_wanted(crash, self.points)]

    def _reproduce(self, plan: tuple[Crash, ...]) -> None:
        found = self._run_plan(plan)
        if len(found.fired) < len(plan):
            raise PointNotReachedError(never_reached(plan[len(found.fired)].label, found.traces[-1]))

    def _run_plan(self, plan: tuple[Crash, ...]) -> Seen:
        label = ", ".join(crash.label.removeprefix(f"{self.lives.name}::") for crash in plan)
        if self.progress is not None:
            self.progress(len(self.report.cells), max(self.report.known, len(self.report.cells) + 1), label)
        found = self._run(plan)
        self._add_cell(found, label)
        return found

    def _add_cell(self, found: Seen, label: str) -> None:
        for key, times in Counter(entry.key for entry in found.ledger.of("ended")).items():
            most, at = self.executions.get(key, (times, ""))
            if times > most:
                most, at = times, at or label
            self.executions[key] = (most, at)
        self.report.cells.append(CellReport.of(found, self.baseline, label, broken_laws(self.baseline, found)))

    def _steps(self) -> list[StepReport]:
        return [
            StepReport(
                key=key,
                function=self.lives.name,
                kind="step",
                guarantee="at-least-once" if at else "never repeated here",
                most=most,
                doubled_at=at,
            )
            for key, (most, at) in self.executions.items()
        ]

    # -- one experiment

    def _run(self, plan: tuple[Crash, ...] = ()) -> Seen:
        with TemporaryDirectory(prefix="durably-foreign-") as directory:
            folder, notes = Path(directory, "run"), Path(directory, "notes")
            folder.mkdir()
            notes.mkdir()
            found = Seen(plan, "", EffectLedger(notes / LEDGER), committed="shown to the model")
            self._live_until_end(found, folder, notes)
            found.ledger.reload()
            path = notes / TRANSCRIPTS
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            found.transcripts = [[(kind, call_id) for kind, call_id in json.loads(line)] for line in lines]
            found.state = None if self.state is None else json.dumps(self.state(folder), ensure_ascii=False)
            found.events = None if self.events is None else list(self.events(folder))
            return found

    def _live_until_end(self, found: Seen, folder: Path, notes: Path) -> None:
        number = failures = 0
        while True:
            number += 1
            life = self.lives.live(number, folder, notes, found.crashes[len(found.fired) :])
            found.traces.append(life.trace)
            if life.struck is not None:
                found.ledger.reload()
                found.fired.append((found.crashes[len(found.fired)], life.struck))
                found.ledger.crashed(life.struck)
            elif life.killed or life.trouble:
                failures += 1
                found.trouble = life.trouble or "something else killed the process"
                if not found.crashes or failures >= self.restarts:
                    return
            else:
                found.trouble, found.output = "", life.answer
                return


def _calls(found: Seen) -> dict[str, int]:
    return dict(Counter(entry.key for entry in found.ledger.of("ended")))
