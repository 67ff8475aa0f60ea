"""Where each step of a run stands in the user's code: the tool that it runs, or the line that asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.core import Function
from durably.core.ids import step_id_of
from durably.core.steps import Point
from durably.testing.agents import agents_of
from durably.testing.source_lines import caller_line, definition_line

__all__ = ["StepLines"]


@dataclass(slots=True)
class StepLines:
    """A probe that notes which line of the user's code asks for each step.

    Args:
        functions: What runs, by id.
    """

    functions: Mapping[str, Function[Any, Any]] = field(default_factory=dict)
    _asked: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(self, point: Point) -> None:
        """Look at who asks: this is called from there."""
        if point.name == "before_start" and (point.function, point.key) not in self._asked:
            self._asked[point.function, point.key] = caller_line()

    def line(self, function: str, key: str) -> str:
        """The line of a step, such as ``"app.py:12 in refund"``; empty if no code of the user's asks for it."""
        owner = self.functions.get(function)
        tool = step_id_of(key).removeprefix("tool-")
        for agent in agents_of(owner).values() if owner is not None else ():
            if f"tool-{tool}" in key and tool in agent.tools:
                return definition_line(agent.tools[tool].fn)
        return self._asked.get((function, key), "")
