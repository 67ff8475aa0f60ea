"""What an engine offers to the bodies of an agent's steps besides running them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from durably.core.events import Event
from durably.core.sessions.store import SessionStore
from durably.core.spending import Spent

__all__ = ["EngineServices", "RunsInLine", "WaitingRun"]


class WaitingRun(NamedTuple):
    """A run that stands in line behind another one.

    Attributes:
        run_id: The run.
        event: What started it.
    """

    run_id: str
    event: Event


RunsInLine = Callable[[str, Collection[str]], Awaitable[Sequence[WaitingRun]]]
"""Gives the runs that wait for the end of a run by ``singleton``, in their order, without those that are known."""


@dataclass(slots=True)
class EngineServices:
    """What an engine offers; an engine without one of them refuses the agents that need it.

    Attributes:
        sessions: The store of sessions beside its runs.
        waiting: Gives the runs that wait for the end of a run. See :data:`RunsInLine`.
        spending: Gives what a run has spent by its records. Every backend has it.
    """

    sessions: SessionStore | None = None
    waiting: RunsInLine | None = None
    spending: Callable[[str], Awaitable[Spent]] | None = None
