"""The hubs of version 0.1.0: one workflow for each event name, with all waiters of that name in its state.

None is started by this version. One that is there goes on until the runs that it knows have got their events: whoever
sends an event tells it too. What programs of that version send and subscribe by it is handed on, as if they had done it
in the way of this version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.workflow import ParentClosePolicy

from durably.backends.temporal.payloads import DELIVER, trigger_arguments
from durably.backends.temporal.run_info import run_memo
from durably.core import Event
from durably.core.events import matches
from durably.core.ids import derive_id

__all__ = ["HAND_ON", "HUB", "SUBSCRIBE", "EventHub", "hub_id"]

HUB = "durably.events"

HAND_ON = "durably.hand-on"
"""The activity that sends an event in the way of this version."""

SUBSCRIBE = "durably.subscribe"
"""The activity that makes known which functions an event starts."""

HANDS_ON = "durably-hands-on"
"""The patch of a history in which a hub hands on what it is told."""

REMEMBERED = 1_000
"""How many event ids a hub remembers, to drop the ones it has seen."""

HANDLED = 1_000
"""After this many signals a hub goes on in a fresh history."""

ACTIVITY_TIMEOUT = timedelta(seconds=30)


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
        self._retired = False

    @workflow.run
    async def run(self, state: dict[str, Any]) -> None:
        """Work until the history is long, then go on in a new one with what is still to be done."""
        self._inbox[:0] = state.get("inbox", [])
        self._seen = state.get("seen", [])
        self._waiting = state.get("waiting", [])
        self._triggered = state.get("triggered", {})
        if workflow.patched(HANDS_ON):
            if await self._drain():
                return
        else:
            await self._work()
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

    @workflow.signal(name="retire")
    def retire(self) -> None:
        """A worker of this version is up: go on in a history in which what comes is handed on."""
        self._retired = True

    # -- as version 0.1.0 did it, until the end of a history that began so

    async def _work(self) -> None:
        handled = 0
        while handled < HANDLED and not workflow.info().is_continue_as_new_suggested():
            await workflow.wait_condition(lambda: bool(self._inbox) or self._retired)
            if self._retired:
                return
            kind, message = self._inbox.pop(0)
            getattr(self, f"_{kind}")(message)
            handled += 1

    def _publish(self, data: dict[str, Any]) -> None:
        if not self._tell_waiters(data):
            return
        event = Event.model_validate(data)
        self._started += 1
        at = workflow.time() + self._started / 1e6  # several may come at one moment; a singleton asks which is newer
        for function, queue in self._triggered.items():
            self._spawn(self._start(function, queue, event, at))

    def _tell_waiters(self, data: dict[str, Any]) -> bool:
        """Tell the runs that wait for an event, unless it was seen before; whether it is new."""
        event = Event.model_validate(data)
        if event.id in self._seen:
            return False
        self._seen.append(event.id or "")
        for waiter in list(self._waiting):
            if matches(event, waiter["match"]):
                self._waiting.remove(waiter)
                self._spawn(self._tell(waiter, data))
        return True

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
                args=trigger_arguments(event, at=at),
                id=derive_id("run", event.id or "", function),
                memo=run_memo(event),
                task_queue=queue,
                task_timeout=workflow.info().task_timeout,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                parent_close_policy=ParentClosePolicy.ABANDON,
            )

    # -- as it is done now

    async def _drain(self) -> bool:
        """Hand on what comes until nobody waits here any more: whether that is so, or the history is long."""
        while True:
            if self._triggered:
                triggered, self._triggered = self._triggered, {}
                name = workflow.info().workflow_id.removeprefix(hub_id(workflow.info().task_queue, ""))
                await self._run(SUBSCRIBE, [name, triggered])
            elif self._inbox:
                await self._hand_on(*self._inbox.pop(0))
            elif self._tasks:
                await workflow.wait_condition(lambda: bool(self._inbox) or not self._tasks)
            elif not self._waiting:
                return True
            elif workflow.info().get_current_history_length() >= HANDLED:
                return False
            else:
                await workflow.wait_condition(lambda: bool(self._inbox))

    async def _hand_on(self, kind: str, message: dict[str, Any]) -> None:
        if kind != "publish":
            getattr(self, f"_{kind}")(message)
        elif self._tell_waiters(message):
            await self._run(HAND_ON, message)  # one after another, in their order

    async def _run(self, name: str, given: Any) -> None:
        await workflow.execute_activity(name, given, start_to_close_timeout=ACTIVITY_TIMEOUT)
