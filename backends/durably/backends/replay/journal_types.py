"""What a journal is handed, and what it hands back: runs, events, and what a transaction did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from durably.backends.replay.crashes import CrashLog
from durably.backends.replay.flow.rules import Plan, StartRules, plan_for
from durably.core import Event, Function, Singleton
from durably.core.run_view import RunStatus

__all__ = ["NO_RULES", "Changes", "Claim", "NewRun", "Received", "RunRow", "Subscription", "WaitingRun"]

NO_RULES = StartRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be created.

    Attributes:
        id: Its id; a run with the same id is not created again.
        function: The id of its function.
        event: What starts it, as JSON.
        parent: The run that waits for it, or ``None``.
        singleton: The rule of its function, or ``None``.
        tags: What it can be found by.
        origin: Where it comes from, if it is a fork, as JSON.
        rules: Its other rules of flow control.
    """

    id: str
    function: str
    event: str
    parent: str | None = None
    singleton: Singleton | None = None
    tags: tuple[str, ...] = ()
    origin: str = ""
    rules: StartRules = NO_RULES

    def plan(self, now: float) -> Plan:
        """What the rules come to for this run. Raises MissingKeyError."""
        if self.singleton is None and self.rules == NO_RULES:
            return Plan(function=self.function, rank=now)
        event = Event.model_validate_json(self.event)
        return plan_for(self.function, event, self.rules, self.singleton, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as it is stored, without its records.

    Attributes:
        status: How it ended; ``WAITING`` while a rule of flow control holds it back; else ``RUNNING``: where a live
            run stands is read from its records.
        owner: The worker that holds it, or ``None``.
        fence: Grows with each change of owner; a write with an older one is refused.
        crashes: How many records the run had each time an owner had vanished.
        root: The run at the top of the calls that led to it, or ``None`` if it is at the top itself.
        session_key: The one in its input, or ``None``.
        tags: What it can be found by.
        ended_at: Seconds since 1970; 0 while it is live.
        crash_notes: What else is known of its crashes; read it as :attr:`crash_log`.
        rested: How many records it had when it left the memory of its worker, to wait; 0 if it has not, or was taken
            up since. As long as it has so many, all its branches wait.
    """

    id: str
    function: str
    status: RunStatus
    parent: str | None
    singleton: str | None
    owner: str | None
    fence: int
    crashes: tuple[int, ...]
    created_at: float
    root: str | None = None
    session_key: str | None = None
    tags: tuple[str, ...] = ()
    ended_at: float = 0.0
    crash_notes: str = ""
    rested: int = 0

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> RunRow:
        """Read a row from what ``json.loads`` gives for the fields of one."""
        status, crashes, tags = RunStatus(data["status"]), tuple(data["crashes"]), tuple(data["tags"])
        return cls(**{**data, "status": status, "crashes": crashes, "tags": tags})

    @property
    def crash_log(self) -> CrashLog:
        """Its crashes, and what they are put down to."""
        return CrashLog.read(self.crashes, self.crash_notes, self.created_at)

    @property
    def is_suspected(self) -> bool:
        """Whether it crashed twice in one place when it was last taken up."""
        return bool(self.crash_notes) and self.crash_log.due > 0

    def with_crashes(self, log: CrashLog) -> RunRow:
        """The same run with other crashes."""
        return replace(self, crashes=log.counts, crash_notes=log.notes)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A function that events start.

    Attributes:
        function: Its id.
        triggers: The names of the events.
        singleton: Its rule, or ``None``.
        rules: Its other rules of flow control.
    """

    function: str
    triggers: tuple[str, ...]
    singleton: Singleton | None
    rules: StartRules = NO_RULES

    @classmethod
    def of(cls, function: Function[Any, Any]) -> Subscription:
        return cls(function.id, function.triggers, function.singleton, StartRules.of(function))


@dataclass(frozen=True, slots=True)
class Received:
    """An event that was delivered: its place in the log, and when."""

    seq: int
    event: Event
    at: float


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A live run that waits for an event.

    Attributes:
        run_id: The run.
        created_at: When it was created, in seconds since 1970.
        until: When the latest of its waits began.
        is_fork: Whether it began with the records of another run.
    """

    run_id: str
    created_at: float
    until: float
    is_fork: bool


@dataclass(slots=True)
class Changes:
    """What a transaction did besides its own record, for the engine to act on.

    Attributes:
        created: New runs that belong to this worker.
        cancelled: Ids of runs that were cancelled.
        ended: Ids of runs that completed or failed.
        received: Events that were delivered.
        scheduled: When something that was put off is due, such as an event of a later time, or ``None``.
        claimable: Whether runs that were held back may begin now.
    """

    created: list[RunRow] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    scheduled: float | None = None
    claimable: bool = False


@dataclass(slots=True)
class Claim:
    """What a worker gets when it looks for runs.

    Attributes:
        runs: The runs that it has taken.
        due: When the next of those that crashed again and again may be taken, in seconds since 1970, or ``None``.
    """

    runs: list[RunRow] = field(default_factory=list)
    due: float | None = None

    def passes_over(self, row: RunRow, moment: float, suspects: int) -> bool:
        """Whether a run that nobody has is left alone for now: it pauses, or enough suspected ones are taken."""
        if not row.is_suspected:
            return False
        due = row.crash_log.due
        if due > moment:
            self.due = due if self.due is None else min(due, self.due)
        return due > moment or suspects <= 0
