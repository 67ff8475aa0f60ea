"""What a crash matrix found, as data. How it is shown stands in ``html.py`` and ``terminal.py``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from durably.core import Trace
from durably.testing.crash.experiment import Experiment
from durably.testing.crash.faults import CrashMode
from durably.testing.crash.guarantees import StepReport
from durably.testing.crash.html import render_html
from durably.testing.crash.law_checks import was_interrupted
from durably.testing.crash.timeline import TimelineEntry, timeline
from durably.testing.laws import Violation

__all__ = ["CellOutcome", "CellReport", "Report"]

CellOutcome = Literal["recovered", "unchanged", "interrupted", "failed", "missed"]
"""``unchanged``: the crash struck, and nothing had to be done again. ``interrupted``: it cut off a step that may run
only once, whose caller was told so. ``missed``: the crash never struck."""


@dataclass(frozen=True, kw_only=True)
class CellReport:
    """One cell of the matrix: an experiment and its verdict.

    Attributes:
        label: The crashes, as in ``repro=``.
        step: The key of the step the last crash struck at; empty for the run itself.
        at: The name of that point.
        function: The function it struck in.
        crashes: How many crashes there were.
        outcome: How it ended.
        restarts: How many bodies ran again.
        violations: The laws that were broken.
        timeline: What happened, for a cell that failed.
        trace: The trace of its run, for a cell that failed.
    """

    label: str
    step: str
    at: str
    function: str
    crashes: int
    outcome: CellOutcome
    restarts: int = 0
    violations: tuple[Violation, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()
    trace: Trace | None = None

    @classmethod
    def of(
        cls, experiment: Experiment, baseline: Experiment, label: str, violations: Sequence[Violation]
    ) -> CellReport:
        """Return the verdict of the laws on an experiment."""
        point = experiment.fired[-1][1] if experiment.fired else None
        last = experiment.crashes[-1] if experiment.crashes else None
        restarts = len(experiment.ledger.of("started")) - len(baseline.ledger.of("started"))
        outcome: CellOutcome = "recovered"
        if len(experiment.fired) < len(experiment.crashes):
            outcome = "missed"
        elif violations:
            outcome = "failed"
        elif was_interrupted(experiment):
            outcome = "interrupted"
        elif experiment.crashes and not experiment.traces[-1]:
            outcome = "unchanged"
        return cls(
            label=label,
            step=point.key if point else last.step if last else "",
            at=point.name if point else last.at if last else "",
            function=point.function if point else "",
            crashes=len(experiment.crashes),
            outcome=outcome,
            restarts=max(0, restarts),
            violations=tuple(violations),
            timeline=timeline(experiment) if outcome in ("failed", "missed") else (),
            trace=_trace(experiment) if outcome in ("failed", "missed") else None,
        )


@dataclass(kw_only=True)
class Report:
    """What a crash matrix found.

    Attributes:
        function: The id of the function under test.
        backend: The engine it ran on.
        mode: How crashes were made.
        cells: Every cell, in the order they ran.
        steps: The steps of the function and of those it calls, in the order they first ran.
        left_out: How many combinations of several crashes sampling skipped, and how many points were passed in one
            experiment alone, by chance, on an engine with a server of its own.
        seconds: How long it took.
        error: Why the run failed without a crash; empty if it did not.
        reproduce: How to run one cell again; ``{label}`` stands for its label.
        trace: The trace of the run without a crash.
    """

    function: str
    backend: str
    mode: CrashMode
    cells: list[CellReport] = field(default_factory=list)
    steps: list[StepReport] = field(default_factory=list)
    left_out: int = 0
    known: int = 0
    seconds: float = 0.0
    error: str = ""
    reproduce: str = "await crash_matrix(..., repro={label!r})"
    trace: Trace | None = None

    @classmethod
    def of_baseline(cls, baseline: Experiment, backend: str, mode: CrashMode) -> Report:
        """A report without cells."""
        failure = baseline.error
        error = "" if failure is None else f"{failure.get('type')}: {failure.get('message', '')}"
        function, trace = baseline.history.function, _trace(baseline)
        return cls(function=function, backend=backend, mode=mode, error=error, trace=trace)

    @property
    def ok(self) -> bool:
        """Whether no law was broken and no crash was missed."""
        return not self.failures

    @property
    def failures(self) -> list[CellReport]:
        """The failed and missed cells, those with the fewest crashes first."""
        bad = [cell for cell in self.cells if cell.outcome in ("failed", "missed")]
        return sorted(bad, key=lambda cell: cell.crashes)

    @property
    def warnings(self) -> list[str]:
        """Problems that are not failures."""
        failed = [f"the run fails without any crash, {self.error}"] if self.error else []
        return failed + [step.warning for step in self.steps if step.warning]

    @property
    def counts(self) -> dict[CellOutcome, int]:
        """The number of cells by outcome."""
        return dict(Counter(cell.outcome for cell in self.cells))

    def to_json(self) -> str:
        """Return the report as one JSON document."""
        data = {"ok": self.ok, "counts": self.counts, **asdict(self), "trace": _data_of(self.trace)}
        for cell, told in zip(data["cells"], self.cells, strict=True):
            cell["trace"] = _data_of(told.trace)
        return json.dumps(data, ensure_ascii=False, indent=1)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the report as one HTML page without other files. Write it to a file if a path is given."""
        page = render_html(self)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def __str__(self) -> str:
        counts = self.counts
        parts = [f"{counts[name]} {name}" for name in get_args(CellOutcome) if name in counts]
        left = f"; {self.left_out} combinations left out" if self.left_out else ""
        head = f"{self.function} on {self.backend}: {len(self.cells)} cells, {', '.join(parts) or 'none'}{left}"
        lines = [head, *(f"warning: {warning}" for warning in self.warnings)]
        if self.failures:
            lines += ["", *self._explain(self.failures[0])]
            lines += self._others()
        return "\n".join(lines)

    def _others(self) -> list[str]:
        """One line for each further problem: most cells that fail do so for the same reason."""
        kinds: dict[tuple[str, ...], list[CellReport]] = {}
        alone = {cell.label for cell in self.failures if cell.crashes == 1}
        for cell in self.failures:
            if cell.crashes > 1 and any(label in alone for label in cell.label.split(", ")):
                continue  # one of its crashes is enough
            kinds.setdefault(tuple(f"{each.law} {each.step}" for each in cell.violations), []).append(cell)
        lines: list[str] = []
        for number, cells in enumerate(kinds.values()):
            if number == 0:
                lines.append(f"{len(cells) - 1} more cells fail in the same way" if len(cells) > 1 else "")
            elif number <= 10:
                found = cells[0].violations[0].found if cells[0].violations else "the crash did not happen"
                lines.append(f"another problem, at {cells[0].label}: {found} ({len(cells)} cells)")
        return ["", *lines] if any(lines) else []

    def _explain(self, cell: CellReport) -> list[str]:
        """The smallest failure, in full."""
        lines = [f"CRASH AT {cell.label}"]
        if cell.outcome == "missed":
            lines.append("  the crash did not happen: the run did not pass this point again")
        for violation in cell.violations:
            lines += [f"  {violation.law} broken: {violation.found}", f"     {violation.meaning}"]
            if violation.line:
                lines.append(f"     in: {violation.line}")
            if violation.patch:
                lines.append(f"     patch: {violation.patch}")
            if violation.difference is not None:
                lines += [
                    f"     first difference: without the crash: {violation.difference.expected}",
                    f"                       with the crash:    {violation.difference.found}",
                ]
        lines += ["  timeline (journal | effects):", *(f"    {entry}" for entry in cell.timeline)]
        return [*lines, f"  reproduce: {self.reproduce.format(label=cell.label)}"]

    __repr__ = __str__


def _trace(experiment: Experiment) -> Trace | None:
    return Trace.of(experiment.history) if len(experiment.history) else None


def _data_of(trace: Trace | None) -> Any:
    return None if trace is None else json.loads(trace.to_json())
