"""A run as it is seen from outside at one moment: where it stands, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from durably.core.stuck import Stuck

__all__ = ["LIVE", "RunStatus", "RunView", "WaitKind", "WaitingFor"]


class RunStatus(StrEnum):
    """The status of a run.

    ``RUNNING``: a worker executes it. ``WAITING``: it waits; see :class:`WaitingFor`. ``RETRYING``: an attempt failed,
    and the next one follows or runs. ``STUCK``: its code does not fit its records, and it waits for code that does.
    """

    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    STUCK = "stuck"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        """Whether the run has ended: a final status never changes, unless a failed run is retried."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.SKIPPED)


LIVE = tuple(status for status in RunStatus if not status.final)
"""The statuses of runs that have not ended."""

WaitKind = Literal["event", "approval", "timer", "child", "turn", "worker"]
"""What a run can wait for. ``turn``: that a rule of flow control lets it begin. ``worker``: that one takes it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFor:
    """One thing that a run waits for.

    Attributes:
        kind: What it is.
        since: Since when, in seconds since 1970.
        name: The event, the tool that needs approval, the function of the child or of the worker, or the option that
            delays it; empty for a timer.
        step: The key of the step that waits; empty for a worker.
        run_id: The child, or ``None``.
        until: When the wait ends at the latest, in seconds since 1970, or ``None``.
    """

    kind: WaitKind
    since: float
    name: str = ""
    step: str = ""
    run_id: str | None = None
    until: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run at one moment, as a backend knows it.

    Attributes:
        id: The run.
        function: The id of its function.
        status: Where it stood.
        output: Its result as JSON text, once it is completed.
        error: Its error as JSON data, once it has failed.
        created_at: Seconds since 1970.
        ended_at: Seconds since 1970; 0 while it is live.
        parent: The id of the run that invoked it, or ``None``.
        root: The id of the run at the top of the calls that led to it, or ``None`` if it is at the top itself.
        session_key: The ``session_key`` in its input, or ``None``.
        tags: What its ``start`` was tagged with.
        stuck: What of the code does not fit it, while it is stuck; else ``None``.
        waiting_for: What it waited for, if it did: the oldest first, several in a ``gather``.
    """

    id: str
    function: str
    status: RunStatus
    output: str | None = None
    error: dict[str, Any] | None = None
    created_at: float = 0.0
    ended_at: float = 0.0
    parent: str | None = None
    root: str | None = None
    session_key: str | None = None
    tags: tuple[str, ...] = ()
    stuck: Stuck | None = None
    waiting_for: tuple[WaitingFor, ...] = ()
