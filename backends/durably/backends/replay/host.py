"""What one run asks of the engine that holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from durably.backends.replay.clock import Clock
from durably.backends.replay.journal import Journal, NewRun
from durably.core import Event, Function, Singleton
from durably.core.backend import RunStatus, RunView
from durably.core.history import StepRecord
from durably.core.secrets import Redactor
from durably.core.steps import Probe

__all__ = ["Host", "Waiting"]

T = TypeVar("T")


class Waiting:
    """A run that waits for an event.

    Attributes:
        name: The event's name.
        match: Dotted paths and the values that must be there.
        cursor: Only events after this place in the log count.
        due: Only events received by then count, or ``None``.
        future: Gets the event.
    """

    def __init__(self, name: str, match: dict[str, Any], cursor: int, due: float | None) -> None:
        self.name = name
        self.match = match
        self.cursor = cursor
        self.due = due
        self.future: asyncio.Future[Event | None] = asyncio.get_running_loop().create_future()

    def wants(self, event: Event, seq: int, at: float) -> bool:
        """Whether this is the event it waits for."""
        return (
            event.name == self.name
            and seq > self.cursor
            and (self.due is None or at <= self.due)
            and all(event.at(path) == value for path, value in self.match.items())
        )


class Host(Protocol):
    """What an execution needs of the engine that holds it."""

    clock: Clock
    journal: Journal
    probe: Probe | None
    threads: bool
    evict: bool
    max_payload_bytes: int
    functions: dict[str, Function[Any, Any]]
    resources: Mapping[str, Any]
    redactor: Redactor
    active: int

    def crash(self, signal: BaseException) -> None: ...
    def commit(
        self,
        record: StepRecord,
        fence: int,
        *,
        status: RunStatus | None = None,
        runs: Sequence[NewRun] = (),
        events: Sequence[Event] = (),
        cancel: str | None = None,
    ) -> None: ...
    def wake(self, future: asyncio.Future[Any], value: Any) -> None: ...
    async def wait(self, future: asyncio.Future[T], due: float | None) -> T | None: ...
    def rest(self) -> None: ...
    def find_event(self, waiting: Waiting) -> Event | None: ...
    def wait_for_event(self, waiting: Waiting) -> None: ...
    def stop_waiting(self, waiting: Waiting) -> None: ...
    def find_run(self, run_id: str) -> RunView | None: ...
    def wait_for_run(self, run_id: str) -> asyncio.Future[Any]: ...
    def singleton_of(self, function: str) -> Singleton | None: ...
    def turns(self, key: str) -> int: ...
