"""Changed code: steps renamed, dropped, added, swapped or given other inputs under a run that is half done.

What must hold is law L11: a change is noticed loudly, before any new effect, or makes no difference to the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from durably.core import Event, Function
from durably.core.history import StepRecord
from durably.testing.crash.changed_steps import ChangeKind, CodeChange, change_function
from durably.testing.crash.engines import Engine, OpenBackend, find_engine
from durably.testing.crash.experiment import Experiment, run_experiment
from durably.testing.crash.faults import Crash
from durably.testing.crash.scenario import Scenario, Subject
from durably.testing.laws import Outcome, Violation, change_is_noticed

__all__ = ["ChangeReport", "change_matrix"]


@dataclass(frozen=True, kw_only=True)
class ChangeReport:
    """What came of the changes.

    Attributes:
        detected: Changes that ended the run with ``NonDeterminismError``.
        harmless: Changes after which the run came to the same result.
        violations: Changes that did neither, or let an effect happen first.
    """

    detected: tuple[str, ...]
    harmless: tuple[str, ...]
    violations: tuple[Violation, ...]

    @property
    def ok(self) -> bool:
        """Whether law L11 holds."""
        return not self.violations

    def __str__(self) -> str:
        head = (
            f"{len(self.detected)} changes detected, {len(self.harmless)} harmless, {len(self.violations)} overlooked"
        )
        return "\n".join([head, *(f"  {each.law}: {each.found}" for each in self.violations)])


async def change_matrix(
    target: Function[Any, Any] | Callable[..., Any],
    data: Any = None,
    *,
    backend: str | Engine | OpenBackend = "memory",
    functions: Sequence[Function[Any, Any]] = (),
    events: Sequence[Event] = (),
) -> ChangeReport:
    """Change the code of a half-finished run, once for each change and place, and check law L11.

    Args:
        target: See :func:`~durably.testing.crash_matrix`.
        data: The same.
        backend: The same.
        functions: The same.
        events: The same.
    """
    scenario = Scenario(
        target=target, data=data, engine=find_engine(backend), functions=tuple(functions), events=tuple(events)
    )
    baseline = await run_experiment(scenario)
    recorded = {record.key: record.output for record in baseline.history if record.final}
    detected: list[str] = []
    harmless: list[str] = []
    violations: list[Violation] = []
    for change in _changes(baseline):
        for crash in _crashes_after(baseline, change):
            experiment = await run_experiment(replace(scenario, change=_changer(change, recorded)), (crash,))
            label = f"{change} after a crash at {crash.step or 'run'}/{crash.at}"
            found = _judge(baseline, experiment, label, change.step)
            if found:
                violations += found
            elif experiment.error is not None and baseline.error is None:
                detected.append(label)
            else:
                harmless.append(label)
    return ChangeReport(detected=tuple(detected), harmless=tuple(harmless), violations=tuple(violations))


def _changes(baseline: Experiment) -> list[CodeChange]:
    steps = [record for record in baseline.history if record.final and record.key]
    found: list[CodeChange] = []
    for place, record in enumerate(steps):
        kinds: tuple[ChangeKind, ...] = (
            ("rename", "drop", "add", "input") if record.kind == "step" else ("rename", "add")
        )
        found += [CodeChange(kind, record.key) for kind in kinds]
        following = steps[place + 1 : place + 2]
        if following and _are_swappable(record, following[0]):
            found.append(CodeChange("swap", record.key, following[0].key))
    return found


def _are_swappable(one: StepRecord, other: StepRecord) -> bool:
    branches = [record.key.rpartition("/")[0] for record in (one, other)]
    return one.kind == other.kind and one.step_id != other.step_id and branches[0] == branches[1]


def _crashes_after(baseline: Experiment, change: CodeChange) -> list[Crash]:
    """Right after the changed step was recorded, and at the very end."""
    function = baseline.history.function
    return [Crash(change.step, "after_commit", 0, function), Crash("", "before_result", 0, function)]


def _judge(baseline: Experiment, experiment: Experiment, label: str, step: str) -> list[Violation]:
    expected, found = (Outcome(status=None, output=each.output, error=each.error) for each in (baseline, experiment))
    started = [
        entry.key for entry in experiment.ledger.of("started") if entry.life > 0 and entry.run_id == experiment.run_id
    ]
    return list(change_is_noticed(expected, found, started, change=label, step=step))


def _changer(change: CodeChange, recorded: Mapping[str, str | None]) -> Callable[[Subject, int], Subject]:
    def changed(subject: Subject, life: int) -> Subject:
        """The first life runs the code as it is, every later one the changed code."""
        return replace(subject, function=change_function(subject.function, change, recorded)) if life else subject

    return changed
