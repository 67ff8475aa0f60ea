"""What the workflow side and the activity side of one worker share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.common import VersioningBehavior

from durably.backends.temporal.code_change.recorded_history import Recordings
from durably.backends.temporal.crash import Crash
from durably.backends.temporal.registry import Names
from durably.core import Function, SerializationError
from durably.core.attempts import Body
from durably.core.secrets import Redactor
from durably.core.steps import Probe

__all__ = ["ARGUMENT", "HOST", "Host"]

HOST = "durably-host"
"""The name under which a workflow finds its worker's host, among the functions Temporal calls extern."""

ARGUMENT = "durably-argument"
"""The query by which an activity asks its workflow for a large argument."""


@dataclass(kw_only=True)
class Host:
    """One worker's view of the world.

    Attributes:
        client: The way to the server.
        task_queue: Where its workflows and activities are.
        hub_queue: Where the workflows that hand on events are.
        functions: What it serves.
        queues: Task queues of functions that other programs serve.
        names: Finds bodies by name.
        resources: Given to bodies.
        redactor: Masks secrets in all that is written.
        max_payload_bytes: The largest value a step may return.
        heartbeat: After how long without a sign of life a body's worker counts as dead.
        continue_after: A run goes on in a fresh history once its own has this many events.
        versioning: What becomes of a run when a newer version of its worker is deployed.
        probe: Gives what the harness looks on with, or ``None``.
        crash: How the harness kills this worker.
        shelf: Bodies that are under way, by Temporal run id and step key: a closure is found here, and a conversation
            need not travel within one process.
        recordings: What the server has of the runs that this worker is taking up.
    """

    client: Client
    task_queue: str
    hub_queue: str
    functions: Mapping[str, Function[Any, Any]]
    queues: Mapping[str, str]
    names: Names
    resources: Mapping[str, Any]
    redactor: Redactor
    max_payload_bytes: int
    heartbeat: timedelta
    continue_after: int
    versioning: VersioningBehavior
    probe: Callable[[], Probe | None]
    crash: Crash = field(default_factory=Crash)
    shelf: dict[tuple[str, str], Body] = field(default_factory=dict)
    recordings: Recordings = field(init=False)

    def __post_init__(self) -> None:
        self.recordings = Recordings(self.client)

    @property
    def task_timeout(self) -> timedelta:
        """After how long a workflow task is given to another worker: Temporal's 10 seconds, or less if so wished."""
        return min(timedelta(seconds=10), max(timedelta(seconds=3), self.heartbeat))

    async def ask(self, info: activity.Info, index: int) -> str:
        """The JSON text of a large argument, from the workflow, piece by piece.

        Raises:
            SerializationError: If the workflow cannot give it.
            RPCError: If no worker answers for the workflow; the attempt is repeated.
        """
        handle = self.client.get_workflow_handle(info.workflow_id or "", run_id=info.workflow_run_id)
        pieces: list[str] = []
        more = True
        while more:
            try:
                piece, more = await handle.query(
                    ARGUMENT, args=[info.activity_id, index, len(pieces)], result_type=list
                )
            except WorkflowQueryFailedError as error:
                raise SerializationError(f"its argument cannot be had: {error}", step=info.activity_id) from None
            pieces.append(piece)
        return "".join(pieces)
