"""The agents behind a function, and models that take the place of theirs for a while."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from durably.core import Agent, Function, Model

__all__ = ["agents_of", "answering", "named_agents"]


def agents_of(function: Function[Any, Any]) -> dict[str, Agent]:
    """The agents that a function may run, by name: itself, those that its code names, and those it delegates to."""
    found: dict[str, Agent] = {}
    known: set[int] = set()
    waiting: list[Function[Any, Any]] = [function]
    while waiting:
        each = waiting.pop(0)
        if id(each) in known:
            continue
        known.add(id(each))
        if isinstance(each, Agent):
            found.setdefault(each.name, each)
        else:
            waiting += named_agents(each)
        waiting += each.uses
    return found


def named_agents(function: Function[Any, Any]) -> list[Agent]:
    """The agents that the code of a function names."""
    if getattr(function.handler, "__code__", None) is None:
        return []
    names = inspect.getclosurevars(function.handler)
    return [value for value in (*names.nonlocals.values(), *names.globals.values()) if isinstance(value, Agent)]


@contextmanager
def answering(function: Function[Any, Any], models: Mapping[str, Model]) -> Iterator[None]:
    """Replace the models of the agents behind a function, as a test's fixture does.

    Args:
        function: The function or agent.
        models: The models by the names of the agents.

    Raises:
        LookupError: If there is no such agent behind it.
    """
    agents = agents_of(function)
    with ExitStack() as undo:
        for name, model in models.items():
            if name not in agents:
                known = ", ".join(agents) or "none"
                raise LookupError(f"there is no agent {name!r} behind {function.id!r}, only: {known}")
            agent = agents[name]
            # An agent is frozen for those who use it. Its name, its tools and its steps stay what they are here.
            undo.callback(object.__setattr__, agent, "model", agent.model)
            object.__setattr__(agent, "model", model)
        yield
