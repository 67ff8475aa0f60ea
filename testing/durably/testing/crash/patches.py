"""What to change, in words: a patch for each of the common causes, with the line it goes to."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from durably.core import Function
from durably.core.history import History
from durably.testing.crash.step_lines import StepLines
from durably.testing.laws import Violation
from durably.testing.laws.violation import AT_LEAST_ONCE, DECIDES, KEY_IGNORED

__all__ = ["Cause", "changed_globals", "located", "patch_of_gather", "read_globals"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that code decided by although no record holds it.

    Attributes:
        words: What it is, such as ``"the clock"``.
        line: Where the code looks at it; empty if that is not known.
    """

    words: str
    line: str = ""

    @property
    def patch(self) -> str:
        """What to write instead."""
        place = f"{self.line}: " if self.line else ""
        return f"{place}{_CAUSES.get(self.words, _GLOBAL)}"


_CAUSES = {
    "the clock": (
        "look at the clock in a step, now = await ctx.step.run('now', time.time), and decide by now; or measure from "
        "what the input or an event says"
    ),
    "the random generator": "draw in a step, number = await ctx.step.run('draw', random.random), and decide by number",
    "the order of a set": "go through sorted(...) of the set, or through dict.fromkeys(...), which keeps its order",
}
_GLOBAL = (
    "keep in the run what the run decides by: give it to the function as input, or read it in a step, "
    "await ctx.step.run('look', ...); a global variable is another one in the process that goes on"
)

_VIOLATIONS = {
    AT_LEAST_ONCE: (
        "take key = current_step().idempotency_key in the body, and pass it to the request that has the effect, such "
        "as pay(order_id, idempotency_key=key); whoever gets it must do nothing for a key it knows. If nobody there "
        "knows keys: @tool(effect='at_most_once')"
    ),
    KEY_IGNORED: (
        "the key gets as far as the body: let the receiver keep it with the effect, in one transaction (a unique "
        "column), and answer a second request under it with the first result"
    ),
    DECIDES: "read what the code decides by in a step, value = await ctx.step.run('look', ...), and decide by value",
}


def located(violation: Violation, lines: StepLines, function: str) -> Violation:
    """The violation with the line of the step it is about, and with a patch if its cause is a common one."""
    line = lines.line(function, violation.step) if violation.step else ""
    patch = _VIOLATIONS.get(violation.meaning, "")
    return replace(violation, line=line, patch=patch)


# -- global variables


def read_globals(functions: Mapping[str, Function[Any, Any]]) -> dict[str, str]:
    """The values of the variables outside of them that functions read, as text, by name."""
    found: dict[str, str] = {}
    for function in functions.values():
        if getattr(function.handler, "__code__", None) is None:
            continue
        seen = inspect.getclosurevars(function.handler)
        for name, value in {**seen.globals, **seen.nonlocals}.items():
            if not callable(value) and not inspect.ismodule(value):
                found[name] = _as_text(value)
    return found


def changed_globals(before: Mapping[str, str], after: Mapping[str, str]) -> list[Cause]:
    """The variables that runs have changed."""
    return [Cause(f"the global variable {name!r}") for name in before if after.get(name) != before[name]]


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=repr)
    except (TypeError, ValueError):
        return repr(value)


# -- two steps at once


def patch_of_gather(history: History) -> str:
    """Where two steps were begun at the same time, and what to write there."""
    error = history.records[-1].error or {}
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', str(error.get("traceback", "")))
    users = [frame for frame in frames if "/durably/" not in frame[0] and "/asyncio/" not in frame[0]]
    place = f"{users[-1][0]}:{users[-1][1]} in {users[-1][2]}: " if users else ""
    return f"{place}write await ctx.step.gather(lambda: ctx.step.run(...), lambda: ctx.step.run(...)) there"
