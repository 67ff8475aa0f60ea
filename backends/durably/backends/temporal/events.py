"""Events on Temporal: one hub workflow for each event name, and the ways to reach it.

Whoever sends an event signals its hub, which starts the functions the event triggers and signals the runs that wait
for it. All of that is recorded in the hub's history, so nothing is lost or doubled, whatever process is down.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from durably.backends.temporal.payloads import payload
from durably.backends.temporal.run_info import run_memo
from durably.core import Event
from durably.core.events import matches
from durably.core.ids import derive_id

__all__ = ["DELIVER", "HUB", "EventHub", "EventHubClient", "ScheduledEvent", "hub_id"]

HUB = "durably.events"
DELIVER = "durably-event"
"""The signal that brings an event to a run that waits for it."""

REMEMBERED = 1_000
"""How many event ids a hub remembers, to drop the ones it has seen."""

HANDLED = 1_000
"""After this many signals a hub goes on in a fresh history."""


def hub_id(queue: str, name: str) -> str:
    """The workflow id of the hub of an event name."""
    return f"{HUB}/{queue}/{name}"


@workflow.defn(name=HUB)
class EventHub:
    """Hands on the events of one name, in the order in which they came."""

    def __init__(self) -> None:
        self._inbox: list[list[Any]] = []
        self._seen: list[str] = []
        self._waiting: list[dict[str, Any]] = []
        self._triggered: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = 0

    @workflow.run
    async def run(self, state: dict[str, Any]) -> None:
        """Work until the history is long, then go on in a new one with what is still to be done."""
        self._inbox[:0] = state.get("inbox", [])
        self._seen = state.get("seen", [])
        self._waiting = state.get("waiting", [])
        self._triggered = state.get("triggered", {})
        handled = 0
        while handled < HANDLED and not workflow.info().is_continue_as_new_suggested():
            await workflow.wait_condition(lambda: bool(self._inbox))
            kind, message = self._inbox.pop(0)
            getattr(self, f"_{kind}")(message)
            handled += 1
        # What is still on its way would be lost with this history.
        await workflow.wait_condition(lambda: not self._tasks)
        workflow.continue_as_new(
            {
                "inbox": self._inbox,
                "seen": self._seen[-REMEMBERED:],
                "waiting": self._waiting,
                "triggered": self._triggered,
            }
        )

    @workflow.signal(name="publish")
    def publish(self, event: dict[str, Any]) -> None:
        """An event was sent."""
        self._inbox.append(["publish", event])

    @workflow.signal(name="wait")
    def wait(self, waiter: dict[str, Any]) -> None:
        """A run waits: its ``run`` id, the step's ``key``, and what must ``match``."""
        self._inbox.append(["wait", waiter])

    @workflow.signal(name="forget")
    def forget(self, waiter: dict[str, Any]) -> None:
        """A run waits no longer."""
        self._inbox.append(["forget", waiter])

    @workflow.signal(name="subscribe")
    def subscribe(self, triggered: dict[str, str]) -> None:
        """Functions that these events start, and the task queue of each."""
        self._inbox.append(["subscribe", triggered])

    def _publish(self, data: dict[str, Any]) -> None:
        event = Event.model_validate(data)
        if event.id in self._seen:
            return
        self._seen.append(event.id or "")
        for waiter in list(self._waiting):
            if matches(event, waiter["match"]):
                self._waiting.remove(waiter)
                self._spawn(self._tell(waiter, data))
        self._started += 1
        at = workflow.time() + self._started / 1e6  # several may come at one moment; a singleton asks which is newer
        for function, queue in self._triggered.items():
            self._spawn(self._start(function, queue, event, at))

    def _wait(self, waiter: dict[str, Any]) -> None:
        self._forget(waiter)
        self._waiting.append(waiter)

    def _forget(self, waiter: dict[str, Any]) -> None:
        same = (waiter["run"], waiter["key"])
        self._waiting = [each for each in self._waiting if (each["run"], each["key"]) != same]

    def _subscribe(self, triggered: dict[str, str]) -> None:
        self._triggered.update(triggered)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # Not awaited here: a run that cannot be reached must not hold up the events behind this one.
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, waiter: dict[str, Any], event: dict[str, Any]) -> None:
        with suppress(ApplicationError):  # the run has ended meanwhile
            await workflow.get_external_workflow_handle(waiter["run"]).signal(DELIVER, args=[waiter["key"], event])

    async def _start(self, function: str, queue: str, event: Event, at: float) -> None:
        with suppress(WorkflowAlreadyStartedError):
            await workflow.start_child_workflow(
                function,
                args=[payload(event.model_dump_json()), payload(json.dumps({"at": at}))],
                id=derive_id("run", event.id or "", function),
                memo=run_memo(event),
                task_queue=queue,
                task_timeout=workflow.info().task_timeout,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                parent_close_policy=ParentClosePolicy.ABANDON,
            )


@workflow.defn(name="durably.scheduled-event")
class ScheduledEvent:
    """An event with a time of its own: this workflow is started then, by Temporal's start delay."""

    @workflow.run
    async def run(self, event: dict[str, Any]) -> None:
        """Hand it to its hub."""
        await workflow.execute_activity("durably.publish", event, start_to_close_timeout=timedelta(seconds=30))


class EventHubClient:
    """The way to the hubs, for clients and activities.

    Args:
        client: The way to the server.
        queue: The task queue of the hubs.
        task_timeout: After how long a task of theirs, or of a run they start, is given to another worker.
    """

    def __init__(self, client: Client, queue: str, task_timeout: timedelta) -> None:
        self._client = client
        self._queue = queue
        self._task_timeout = task_timeout

    async def send(self, events: list[Event]) -> list[str]:
        """Hand over events that have ids, in order. Safe to repeat."""
        for event in events:
            if event.ts is not None and event.ts > time.time():
                await self._schedule(event)
            else:
                await self.signal(event.name, "publish", event.model_dump(mode="json"))
        return [event.id or "" for event in events]

    @activity.defn(name="durably.publish")
    async def publish(self, event: dict[str, Any]) -> None:
        """Hand an event whose time has come to its hub."""
        await self.signal(event["name"], "publish", event)

    async def signal(self, name: str, signal: str, message: dict[str, Any]) -> None:
        """Signal the hub of an event name, which is started if it is not there."""
        await self._client.start_workflow(
            HUB,
            {},
            id=hub_id(self._queue, name),
            task_queue=self._queue,
            task_timeout=self._task_timeout,
            start_signal=signal,
            start_signal_args=[message],
        )

    async def _schedule(self, event: Event) -> None:
        delay = timedelta(seconds=max(0.0, (event.ts or 0.0) - time.time()))
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(
                ScheduledEvent.run,
                event.model_dump(mode="json"),
                id=f"durably.event/{event.id}",
                task_queue=self._queue,
                task_timeout=self._task_timeout,
                start_delay=delay,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )
