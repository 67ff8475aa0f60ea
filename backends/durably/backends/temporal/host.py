"""What the workflows and the activities of one worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import VersioningBehavior

from durably.backends.temporal.code_change.recorded_history import RecordedHistories
from durably.backends.temporal.crash import Crash
from durably.backends.temporal.registry import StepRegistry
from durably.core import Function
from durably.core.attempts import StepCall
from durably.core.cause import Cause
from durably.core.environment import Environment
from durably.core.history import StepRecord

__all__ = ["HOST", "TemporalHost"]

HOST = "durably-host"
"""The name under which a workflow finds its worker's host, among the functions Temporal calls extern."""


@dataclass(kw_only=True)
class TemporalHost:
    """One worker, as the code of its runs and the bodies of their steps see it.

    Attributes:
        environment: What bodies and functions are run with.
        functions: What it serves, by id.
        client: The way to the server.
        task_queue: Where its workflows and activities are.
        hub_queue: Where the workflows that hand on events are.
        queues: Task queues of functions that other programs serve.
        registry: Finds bodies by name.
        heartbeat: After how long without a sign of life a body's worker counts as dead.
        continue_after: A run goes on in a fresh history once its own has this many events.
        versioning: What becomes of a run when a newer version of its worker is deployed.
        task_timeout: After how long a workflow task is given to another worker.
        crash: How the harness kills this worker.
        pending: The calls whose activities are under way, by Temporal run id and step key: an activity finds a closure
            here, and a conversation need not travel within one process.
        evicting: Temporal's ids of the runs that are leaving the worker's cache now: their code is cancelled for that.
        histories: What the server has of the runs that this worker is taking up.
        untold: What observers are to be told once a workflow's task is done, by Temporal's run id.
        loop: Where the worker runs, and where observers are told; ``None`` before it was started.
    """

    environment: Environment
    functions: Mapping[str, Function[Any, Any]]
    client: Client
    task_queue: str
    hub_queue: str
    queues: Mapping[str, str]
    registry: StepRegistry
    heartbeat: timedelta
    continue_after: int
    versioning: VersioningBehavior
    task_timeout: timedelta
    crash: Crash = field(default_factory=Crash)
    pending: dict[tuple[str, str], StepCall] = field(default_factory=dict)
    evicting: set[str] = field(default_factory=set)
    histories: RecordedHistories = field(init=False)
    loop: asyncio.AbstractEventLoop | None = None
    untold: dict[str, list[tuple[StepRecord, str, Cause]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.histories = RecordedHistories(self.client)

    def tell_of(self, record: StepRecord, function: str, cause: Cause) -> None:
        """Have observers told what a workflow has come to, once its task has said so to the server.

        Args:
            record: The record of it.
            function: The id of the run's function.
            cause: What began the run.
        """
        if not workflow.unsafe.is_replaying():
            self.untold.setdefault(workflow.info().run_id, []).append((record, function, cause))

    def tell(self, run_id: str, *, done: bool) -> None:
        """Tell what a workflow has come to in its task, or forget it.

        Args:
            run_id: Temporal's id of the run.
            done: Whether the task is done. One that failed, or was cut off by a crash, is done again.
        """
        told = self.untold.pop(run_id, ())
        if done and self.loop is not None:
            # Not here: this is a thread of Temporal's, with an event loop in which every task is part of a workflow.
            for each in told:
                self.loop.call_soon_threadsafe(self.environment.observers.tell_of, *each)
