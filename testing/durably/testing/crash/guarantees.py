"""The delivery guarantee of each step's effect, as it was seen over all experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from durably.core import Agent, Function
from durably.testing.agents import named_agents
from durably.testing.crash.experiment import Experiment

__all__ = ["Guarantee", "GuaranteeCount", "StepReport"]

Guarantee = Literal["exactly-once (keyed)", "at-least-once", "at-most-once", "no body", "never repeated here"]
"""What a step promises about its effect: once, as whoever has the effect ignores a key it knows; maybe again after a
crash; never again; or there is no body of yours in it, and the engine sees to it. Of a tool of another
library one can only say what was seen: that no crash made it run again."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The result of the experiments for one step.

    Attributes:
        key: Its key.
        function: The function it belongs to.
        kind: Its kind.
        guarantee: How often its effect can happen, whatever crashes.
        most: How often its body ran in the worst experiment.
        doubled_at: A crash after which it ran again; empty if there was none.
        warning: What to do about it; empty if nothing.
    """

    key: str
    function: str
    kind: str
    guarantee: Guarantee
    most: int
    doubled_at: str = ""
    warning: str = ""


class GuaranteeCount:
    """Counts, over all experiments, how often each step's body was carried out and whether it asked for its key."""

    def __init__(self) -> None:
        self._usual: Counter[tuple[str, str]] = Counter()
        self._most: Counter[tuple[str, str]] = Counter()
        self._doubled: dict[tuple[str, str], str] = {}
        self._unkeyed: set[tuple[str, str]] = set()

    def add(self, experiment: Experiment, label: str) -> None:
        """Count one experiment; without a label it is the one without a crash."""
        ended = experiment.ledger.of("ended")
        # One execution that does not ask for its key is enough to do harm.
        self._unkeyed.update((entry.function, entry.key) for entry in ended if not entry.used_key)
        for (_, function, key), count in Counter((each.run_id, each.function, each.key) for each in ended).items():
            step = (function, key)
            if not label:
                self._usual[step] = max(self._usual[step], count)
            elif count > self._usual[step] and step not in self._doubled:
                self._doubled[step] = label
            self._most[step] = max(self._most[step], count)

    def steps(self, baseline: Experiment, functions: Mapping[str, Function[Any, Any]]) -> list[StepReport]:
        """What can be said of each step now."""
        reports: list[StepReport] = []
        for log in baseline.after.runs.values():
            once_only = {record.key for record in log.history if record.kind == "step" and record.status == "started"}
            for record in log.history:
                if record.final and record.key:
                    step = (log.function, record.key)
                    guarantee = self._guarantee_of(step, record.kind, record.key in once_only)
                    reports.append(
                        self._report(step, record.kind, guarantee, record.step_id, functions.get(log.function))
                    )
        return _warn_once(list({(report.function, report.key): report for report in reports}.values()))

    def _guarantee_of(self, step: tuple[str, str], kind: str, once_only: bool) -> Guarantee:
        if kind != "step":
            return "no body"
        if once_only:
            return "at-most-once"
        return "at-least-once" if step in self._unkeyed else "exactly-once (keyed)"

    def _report(
        self, step: tuple[str, str], kind: str, guarantee: Guarantee, step_id: str, owner: Function[Any, Any] | None
    ) -> StepReport:
        function, key = step
        doubled = self._doubled.get(step, "")
        warning = ""
        if guarantee == "at-least-once" and doubled and _may_have_effect(owner, step_id):
            warning = (
                f"{step_id} does not use its idempotency key: a crash at {doubled} runs it {self._most[step]} times. "
                "If it only reads, declare it @tool(effect='pure'). Otherwise pass current_step().idempotency_key to "
                "the service that has the effect"
            )
        return StepReport(
            key=key,
            function=function,
            kind=kind,
            guarantee=guarantee,
            most=self._most[step],
            doubled_at=doubled,
            warning=warning,
        )


def _warn_once(reports: list[StepReport]) -> list[StepReport]:
    """Keep the first warning about each step id: a tool that is called in ten steps is one thing to mend."""
    warned: set[str] = set()
    for place, report in enumerate(reports):
        if not report.warning:
            continue
        step_id = report.warning.partition(" ")[0]
        if step_id in warned:
            reports[place] = replace(report, warning="")
        warned.add(step_id)
    return reports


def _may_have_effect(owner: Function[Any, Any] | None, step_id: str) -> bool:
    """Whether a step is a tool that is not declared free of effects."""
    name = step_id.removeprefix("tool-")
    if name == step_id:
        return False
    tools = [agent.tools[name] for agent in _agents_of(owner) if name in agent.tools]
    return not tools or any(tool.effect != "pure" for tool in tools)


def _agents_of(owner: Function[Any, Any] | None) -> list[Agent]:
    """The agents whose loop a function may run: itself, or those that its code names."""
    if owner is None or isinstance(owner, Agent):
        return [] if owner is None else [owner]
    return named_agents(owner)
