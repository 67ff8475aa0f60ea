"""What events came for the steps of one run that wait.

A hub says for which step an event is. An answer to a question of a run's own comes to the run itself, which knows what
its steps wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.core import APPROVAL_GIVEN, Event
from durably.core.approval import PLACE
from durably.core.events import matches

__all__ = ["EventInbox", "asking_run", "waits_at_run"]

APPROVAL = "approval"
"""Where an answer names its question."""


def asking_run(event: Event) -> str | None:
    """The run whose question an event answers, or ``None`` if it is no answer, or does not say whose."""
    return _run_of(event.name, event.at(APPROVAL))


def waits_at_run(run_id: str, name: str, match: Mapping[str, Any]) -> bool:
    """Whether a step waits for the answer to a question of its own run, which comes to that run itself."""
    return match.keys() == {APPROVAL} and _run_of(name, match[APPROVAL]) == run_id


def _run_of(name: str, approval: object) -> str | None:
    if name != APPROVAL_GIVEN or not isinstance(approval, str):
        return None
    return approval.rpartition(PLACE)[0] or None


@dataclass
class _Wait:
    """A step that waits for an answer: the event's name, what must match, and since when, by the server's clock."""

    name: str
    match: Mapping[str, Any]
    since: float


@dataclass
class EventInbox:
    """The events that came, by the key of the step that waits.

    Attributes:
        came: The first event for each step.
    """

    came: dict[str, dict[str, Any]] = field(default_factory=dict)
    _waits: dict[str, _Wait] = field(default_factory=dict)
    _arrivals: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    def expect(self, key: str, name: str, match: Mapping[str, Any], since: float) -> None:
        """A step waits from now on for an answer that comes to the run itself."""
        self._waits[key] = _Wait(name, match, since)

    def forget(self, key: str) -> None:
        """A step waits no longer."""
        self._waits.pop(key, None)
        self._arrivals.pop(key, None)

    def deliver(self, key: str, event: dict[str, Any]) -> None:
        """An event came for a step; the first one counts."""
        self.came.setdefault(key, event)
        arrival = self._arrivals.pop(key, None)
        if arrival is not None and not arrival.done():  # who waited may have given up
            arrival.set_result(None)

    def arrival(self, key: str) -> asyncio.Future[None]:
        """What is done once an event has come for a step."""
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if key in self.came:
            arrival.set_result(None)
        else:
            self._arrivals[key] = arrival
        return arrival

    def offer(self, event: dict[str, Any], before: float | None) -> list[str]:
        """An answer came; it is for steps that wait since a moment earlier than ``before``. The keys of those."""
        given = Event.model_validate(event)
        keys = [
            key
            for key, wait in self._waits.items()
            if wait.name == given.name and matches(given, wait.match) and (before is None or wait.since < before)
        ]
        for key in keys:
            del self._waits[key]
            self.deliver(key, event)
        return keys
