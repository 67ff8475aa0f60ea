"""Changed code: steps renamed, dropped, added, swapped or given other inputs under a run that is half done.

The change is made between the code and its steps, so that it works for functions and for agents alike. What must hold
is law L11: a change is noticed loudly, before any new effect, or makes no difference to the result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from durably.core import Context, Event, Function, FunctionRef, StepAPI
from durably.core.history import StepRecord
from durably.core.serialization import codec_for, return_type
from durably.core.step_keys import Scope, _scope
from durably.core.steps import Duration
from durably.testing.crash.engines import Engine, OpenBackend, find_engine
from durably.testing.crash.experiment import Experiment, run_experiment
from durably.testing.crash.faults import Crash
from durably.testing.crash.scenario import Scenario, Subject
from durably.testing.laws import Violation

__all__ = ["ChangeKind", "ChangeReport", "CodeChange", "change_matrix"]

ChangeKind = Literal["rename", "drop", "add", "swap", "input"]


@dataclass(frozen=True, slots=True)
class CodeChange:
    """One change of the code.

    Attributes:
        kind: ``rename`` gives the step another id, ``drop`` leaves it out, ``add`` puts a new one before it, ``swap``
            exchanges its id with that of the step after it, ``input`` gives its body one more argument.
        step: The key of the step.
        other: For ``swap``, the key of the other one.
    """

    kind: ChangeKind
    step: str
    other: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.step}" + (f" with {self.other}" if self.other else "")


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
    """Change the code of a run that crashed half-way, once for each change and place, and hold it to law L11.

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
            found = _judge(baseline, experiment, change, label)
            if found is not None:
                violations.append(found)
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


def _judge(baseline: Experiment, experiment: Experiment, change: CodeChange, label: str) -> Violation | None:
    detected = experiment.error is not None and experiment.error.get("type") == "NonDeterminismError"
    if not detected and experiment.output == baseline.output and experiment.error == baseline.error:
        return None
    started = [
        entry.key for entry in experiment.ledger.of("started") if entry.life > 0 and entry.run_id == experiment.run_id
    ]
    meaning = "A run must not go on, on code that no longer fits what it recorded, as if nothing had happened."
    if not detected:
        what = experiment.error if experiment.error is not None else experiment.output
        return Violation("L11", f"{label} went unnoticed: the run came to {what}", meaning, change.step)
    if started:
        return Violation("L11", f"{label} was noticed only after {started[0]!r} had run", meaning, change.step)
    return None


# -- the change itself


def _changer(change: CodeChange, recorded: Mapping[str, str | None]) -> Callable[[Subject, int], Subject]:
    def changed(subject: Subject, life: int) -> Subject:
        """The first life runs the code as it is, every later one the changed code."""
        return replace(subject, function=_changed(subject.function, change, recorded)) if life else subject

    return changed


def _changed(
    function: Function[Any, Any], change: CodeChange, recorded: Mapping[str, str | None]
) -> Function[Any, Any]:
    """The same function, whose code asks for other steps."""

    async def handler(ctx: Context[Any]) -> Any:
        return await function.handler(replace(ctx, step=_ChangedSteps(ctx.step, change, recorded)))

    return function._replace(handler=handler)


class _ChangedSteps(StepAPI):
    """Steps as the changed code asks for them."""

    def __init__(self, steps: StepAPI, change: CodeChange, recorded: Mapping[str, str | None]) -> None:
        self._steps = steps
        self._change = change
        self._recorded = recorded
        self._scopes: dict[str, Scope] = {}

    def _new_id(self, step_id: str) -> tuple[str, bool]:
        """What the changed code calls the step, and whether it is the changed one."""
        scope = _scope.get()
        prefix = "" if scope is None else scope.prefix
        key = self._scopes.setdefault(prefix, Scope(prefix)).key(step_id)
        change = self._change
        if change.kind == "swap" and key in (change.step, change.other):
            other = change.other if key == change.step else change.step
            return other.rpartition("/")[2].partition(":")[0], True
        if key != change.step:
            return step_id, False
        return (f"{step_id}-renamed" if change.kind == "rename" else step_id), True

    async def _add(self, hit: bool) -> None:
        if hit and self._change.kind == "add":
            await self._steps.run("added", _nothing)

    async def run(  # type: ignore[override]  # the overloads' types are for callers
        self, step_id: str, fn: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        name, hit = self._new_id(step_id)
        if hit and self._change.kind == "drop":  # the code now finds the same value without a step
            output = self._recorded[self._change.step]
            codec = codec_for(options.get("output_type") or return_type(fn))
            return None if output is None else codec.decode(output, step=step_id)
        await self._add(hit)
        if hit and self._change.kind == "input":
            return await self._steps.run(name, lambda *given: fn(*given[:-1]), *args, "changed", **options)
        return await self._steps.run(name, fn, *args, **options)

    async def invoke(
        self, step_id: str, function: FunctionRef[Any, Any], data: Any = None, *, timeout: Duration | None = None
    ) -> Any:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        return await self._steps.invoke(name, function, data, timeout=timeout)

    async def send_event(self, step_id: str, *events: Event) -> list[str]:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        return await self._steps.send_event(name, *events)

    async def sleep(self, step_id: str, duration: Duration) -> None:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        await self._steps.sleep(name, duration)

    async def sleep_until(self, step_id: str, when: datetime | float) -> None:
        name, hit = self._new_id(step_id)
        await self._add(hit)
        await self._steps.sleep_until(name, when)

    async def wait_for_event(
        self, step_id: str, name: str, *, match: Mapping[str, Any] | None = None, timeout: Duration | None = None
    ) -> Event | None:
        new, hit = self._new_id(step_id)
        await self._add(hit)
        return await self._steps.wait_for_event(new, name, match=match, timeout=timeout)

    async def gather(self, *branches: Callable[[], Awaitable[Any]]) -> tuple[Any, ...]:
        return await self._steps.gather(*branches)


async def _nothing() -> None:
    return None
