"""Events on Temporal: whoever sends one starts the functions it triggers, and tells the hubs of those that wait for it.

No workflow is passed by all events of a name. What an event starts has an id that is derived from the event's, and is
started once. An event that may come twice, and starts nothing, is remembered by a workflow of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.delivery import RunTeller
from durably.backends.temporal.earlier_hub import HAND_ON, HUB, SUBSCRIBE, hub_id
from durably.backends.temporal.event_facts import EventFacts, FactsOf
from durably.backends.temporal.event_inbox import asking_run
from durably.backends.temporal.hub_client import HubClient
from durably.backends.temporal.hub_names import hub_of_match, hubs_of_event, value_of_match
from durably.backends.temporal.payloads import OFFER, trigger_arguments
from durably.backends.temporal.run_info import run_memo
from durably.backends.temporal.waiters import Waiter
from durably.core import Event
from durably.core.ids import derive_id

__all__ = ["EventMark", "EventSender", "ScheduledEvent", "Wait"]

MARK = "durably.event-seen"

Again = Literal["never", "by a retry", "by anybody"]
"""Who may send an event again."""


@workflow.defn(name="durably.scheduled-event")
class ScheduledEvent:
    """An event with a time of its own: this workflow is started then, by Temporal's start delay."""

    @workflow.run
    async def run(self, event: dict[str, Any]) -> None:
        """Send it."""
        await workflow.execute_activity("durably.publish", event, start_to_close_timeout=timedelta(seconds=30))


@workflow.defn(name=MARK)
class EventMark:
    """Remembers an event that may come twice and starts nothing, as long as the namespace keeps ended workflows."""

    @workflow.run
    async def run(self) -> None:
        """Nothing is to be done: its id is all."""


class Wait(NamedTuple):
    """A step that waits for an event: its key, the event's name, and what must match."""

    key: str
    name: str
    match: Mapping[str, Any]


class EventSender:
    """Sends events, and registers those that wait for them, for clients and activities.

    Args:
        client: The way to the server.
        queue: The task queue of the hubs.
        task_timeout: After how long a task of a hub, or of a run that an event starts, is given to another worker.
    """

    def __init__(self, client: Client, queue: str, task_timeout: timedelta) -> None:
        self._client = client
        self._queue = queue
        self._task_timeout = task_timeout
        self._facts = EventFacts(client, queue)
        self._hubs = HubClient(client, queue, task_timeout)

    def activities(self) -> list[Callable[..., Any]]:
        """What workflows ask for that send events."""
        return [self.publish, self.hand_on, self.subscribe]

    def hub_activities(self) -> list[Callable[..., Any]]:
        """What hubs ask for."""
        return [RunTeller(self._hubs.tell).deliver_all]

    async def send(self, events: Sequence[Event], *, own: Collection[str | None], once: bool) -> list[str]:
        """Send events that have ids, in order. Safe to repeat.

        Args:
            events: The events.
            own: Ids that the user chose, and that anybody may send again.
            once: Whether those with other ids are sent this once; if not, a retry may send them again.
        """
        for event in events:
            if event.ts is not None and event.ts > time.time():
                await self._schedule(event)
            else:
                again: Again = "by anybody" if event.id in own else "never" if once else "by a retry"
                await self._send(event, again)
        return [event.id or "" for event in events]

    @activity.defn(name="durably.publish")
    async def publish(self, event: dict[str, Any]) -> None:
        """Send an event whose time has come."""
        await self._send(Event.model_validate(event), "by anybody")

    @activity.defn(name=HAND_ON)
    async def hand_on(self, event: dict[str, Any]) -> None:
        """Send an event that was told to a hub of version 0.1.0."""
        await self._send(Event.model_validate(event), "by anybody", by_hub=True)

    @activity.defn(name=SUBSCRIBE)
    async def subscribe(self, asked: list[Any]) -> None:
        """Have the events of a name start functions, each on its task queue."""
        name, triggered = asked
        await self.add_triggers(name, triggered)

    async def add_triggers(self, name: str, triggered: Mapping[str, str]) -> None:
        """Have the events of a name start functions.

        Args:
            name: The event name.
            triggered: The task queue of each function, by its id.
        """
        for function, queue in triggered.items():
            await self._facts.add_trigger(name, function, queue)

    def hub_of(self, name: str, match: Mapping[str, Any]) -> str:
        """The hub of those who wait for an event of a name with these values, whether it is there or not."""
        return hub_of_match(self._queue, name, match)

    async def wait(self, waits: Sequence[Wait], run_id: str, since: float) -> list[str]:
        """Register a run that waits; for each of its waits the hub that will tell it.

        Args:
            waits: What its steps wait for.
            run_id: The run.
            since: When the steps began, by the server's clock.
        """
        hubs = [self.hub_of(wait.name, wait.match) for wait in waits]
        waiters: dict[str, list[Waiter]] = {}
        for hub, wait in zip(hubs, waits, strict=True):
            value = value_of_match(wait.name, wait.match)
            waiter = {"run": run_id, "key": wait.key, "since": since, "value": value}
            waiters.setdefault(hub, []).append(waiter)
        await asyncio.gather(*(self._hubs.wait(hub, each) for hub, each in waiters.items()))
        # Afterwards: who finds the fact finds the hub.
        for name, paths in dict.fromkeys((wait.name, tuple(sorted(wait.match))) for wait in waits):
            await self._facts.add_paths(name, paths)
        return hubs

    async def retire_earlier_hubs(self) -> None:
        """Let the hubs of version 0.1.0 hand on what comes to them from now on."""
        query = f"WorkflowType = '{HUB}' AND TaskQueue = '{self._queue}' AND ExecutionStatus = 'Running'"
        try:
            async for each in self._client.list_workflows(query):
                await self._hubs.tell(each.id, "retire")
        except RPCError as error:
            if error.status is not RPCStatusCode.UNIMPLEMENTED:  # a server for tests that keeps no list
                raise

    async def _send(self, event: Event, again: Again, *, by_hub: bool = False) -> None:
        """Start and tell all that an event is for.

        Args:
            event: The event.
            again: Who may send it again, or has.
            by_hub: Whether a hub of version 0.1.0 hands it on, and need not be told.
        """
        facts = await self._facts.read(event.name)
        earlier = facts.earlier_hub and not by_hub  # what is told to it comes again, handed on
        received = bool(facts.triggers) or earlier or again == "by anybody"
        before = await self._receive(event, facts) if received else None
        data = event.model_dump(mode="json")
        if (run_id := asking_run(event)) is not None:
            await self._hubs.tell(run_id, OFFER, {"event": data, "before": before})
        for hub, values in hubs_of_event(self._queue, event, facts.paths).items():
            if await self._hubs.is_there(hub):
                if not received and again == "by a retry":
                    before, received = await self._receive(event, facts), True
                await self._hubs.offer(hub, {"event": data, "before": before, "values": values})
        if earlier:
            hub = hub_id(self._queue, event.name)
            await self._hubs.is_there(hub)
            await self._hubs.tell(hub, "publish", data)

    # -- what an event starts

    async def _receive(self, event: Event, facts: FactsOf) -> float | None:
        """Start what an event triggers, or remember the event; when it was received, if that was before.

        An event that was received before is not for those who wait since then. It is for those who waited already: the
        process that sent it first may have died on the way.
        """
        if not facts.triggers:
            mark = f"{MARK}/{self._queue}/{derive_id('seen', event.name, event.id or '')}"
            return await self._start_once(MARK, [], mark, self._queue)
        started = await asyncio.gather(
            *(self._start_run(event, function, queue) for function, queue in sorted(facts.triggers.items()))
        )
        return min((each for each in started if each is not None), default=None)

    async def _start_run(self, event: Event, function: str, queue: str) -> float | None:
        run_id = derive_id("run", event.id or "", function)
        return await self._start_once(
            function, trigger_arguments(event, triggered=True), run_id, queue, memo=run_memo(event)
        )

    async def _start_once(
        self, kind: str, args: Sequence[RawValue], workflow_id: str, queue: str, memo: Mapping[str, Any] | None = None
    ) -> float | None:
        """Start a workflow; when it was started, in seconds since 1970, if that was before."""
        try:
            await self._client.start_workflow(
                kind,
                args=args,
                id=workflow_id,
                memo=memo,
                task_queue=queue,
                task_timeout=self._task_timeout,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            return await self._started_at(workflow_id)
        return None

    async def _started_at(self, workflow_id: str) -> float:
        found = await self._client.get_workflow_handle(workflow_id).describe()
        first = found.raw_description.workflow_execution_info.first_run_id
        if first != found.run_id:  # it has gone on in a fresh history since
            found = await self._client.get_workflow_handle(workflow_id, run_id=first).describe()
        return found.start_time.timestamp()

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
