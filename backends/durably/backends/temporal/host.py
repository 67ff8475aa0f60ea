"""What the workflows and the activities of one worker share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import VersioningBehavior

from durably.backends.temporal.code_change.recorded_history import RecordedHistories
from durably.backends.temporal.crash import Crash
from durably.backends.temporal.registry import StepRegistry
from durably.core import Function
from durably.core.attempts import Environment, StepCall

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
        histories: What the server has of the runs that this worker is taking up.
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
    histories: RecordedHistories = field(init=False)

    def __post_init__(self) -> None:
        self.histories = RecordedHistories(self.client)
