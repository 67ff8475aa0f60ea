"""The runs that wait for one thing: events of one name with the same values in the same places.

Such a hub is there while somebody waits. Whoever sends an event finds it by the values that the event has, so an event
meets those alone that it can match. A hub holds a bounded number of waiters: of more, it hands all to parts, which are
hubs of their own. It goes on in a fresh history when its own is long; senders hold off until it has (`hub_client.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ParentClosePolicy

from durably.backends.temporal.payloads import DELIVER
from durably.core import Event
from durably.core.events import matches
from durably.core.ids import derive_id

__all__ = ["LONG", "WAIT_HUB", "WaitHub", "hub_of_match", "hubs_of_event", "queue_of_hubs"]

WAIT_HUB = "durably.waits"

LONG = 4_000
"""A history of so many events takes no more: a hub goes on in a fresh one. Temporal allows 10,000 signals in one."""

QUIET = timedelta(seconds=0.3)
"""How long no signal must have come before a hub goes on: a signal in that very moment would make its task fail."""

HELD = 1_000
"""How many waiters one hub holds; of more it hands all to its parts."""

PARTS = 16

TOLD_AT_ONCE = 200
"""How many runs are told of an event in one task; Temporal allows 2,000 signals under way."""

TASK_BYTES = 2_000_000
"""And how many bytes of the event in all: Temporal takes up to 4 MB from one task."""

ROOM = 10_000_000
"""A history of so many bytes is left to those who are still to be told of a large event, in one of their own."""

Waiter = dict[str, Any]
"""A ``run``, the ``key`` of its step, and ``since`` when it waits, in seconds since 1970 by the server's clock."""


def queue_of_hubs(queue: str) -> str:
    """The task queue of the hubs that belong to a task queue: one of their own, as :class:`HubWorker` says.

    Args:
        queue: The task queue that the programs which share events have named as their hub queue.
    """
    return f"{WAIT_HUB}/{queue}"


def hub_of_match(queue: str, name: str, match: Mapping[str, Any]) -> str:
    """The workflow id of the hub of those who wait for these values.

    Args:
        queue: The task queue that the hubs belong to.
        name: The event name.
        match: Dotted paths and the values that must be there.
    """
    values = json.dumps([[path, _plain(match[path])] for path in sorted(match)], sort_keys=True)
    return f"{WAIT_HUB}/{queue}/{name}/{derive_id('wait', name, values)}"


def hubs_of_event(queue: str, event: Event, kinds: Iterable[Sequence[str]]) -> list[str]:
    """The hubs of those who wait for the values that an event has.

    Args:
        queue: The task queue that the hubs belong to.
        event: The event.
        kinds: By which paths runs wait. Where the event has nothing at one of them, nobody waits for it by these.
    """
    matched = ({path: event.at(path) for path in paths} for paths in kinds)
    return [hub_of_match(queue, event.name, match) for match in matched if matches(event, match)]


def _plain(value: Any) -> Any:
    """A JSON value in the one form that all values have which are the same to :func:`matches`."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@workflow.defn(name=WAIT_HUB)
class WaitHub:
    """Tells the runs that wait for one thing when it has come. Each is told once, and then waits here no more."""

    def __init__(self) -> None:
        self._inbox: list[tuple[str, Any]] = []
        self._waiting: dict[tuple[str, str], Waiter] = {}
        self._divided = False
        self._telling: set[asyncio.Task[None]] = set()

    @workflow.run
    async def run(self, state: dict[str, Any]) -> None:
        """Go on until nobody waits here.

        Args:
            state: Those who are ``waiting``, and whether they are ``divided`` among parts. With an ``event``: what they
                are to be told.
        """
        self._add(state.get("waiting", []))
        self._divided = state.get("divided", False)
        if "event" in state:
            self._inbox.append(("offer", (state["event"], None)))
        while True:
            if self._inbox:
                await self._work()
            elif self._telling:
                await workflow.wait_condition(lambda: bool(self._inbox) or not self._telling)
            elif not self._waiting and not self._divided:
                return
            elif workflow.info().get_current_history_length() >= LONG:
                await self._continue_when_quiet()
            else:
                await workflow.wait_condition(lambda: bool(self._inbox))

    async def _continue_when_quiet(self) -> None:
        """Go on in a fresh history, unless a signal comes: of senders that had looked before this one was long."""
        try:
            await workflow.wait_condition(lambda: bool(self._inbox), timeout=QUIET)
        except TimeoutError:
            workflow.continue_as_new({"waiting": [*self._waiting.values()], "divided": self._divided})

    @workflow.signal(name="wait")
    def wait(self, waiters: list[Waiter]) -> None:
        """Runs wait from now on."""
        self._inbox.append(("wait", waiters))

    @workflow.signal(name="forget")
    def forget(self, waiter: Waiter) -> None:
        """A run waits no longer."""
        self._inbox.append(("forget", waiter))

    @workflow.signal(name="offer")
    def offer(self, event: dict[str, Any], before: float | None) -> None:
        """The event has come; it is for those who have waited since a moment that was earlier than ``before``."""
        self._inbox.append(("offer", (event, before)))

    async def _work(self) -> None:
        """Do what was asked, in that order; what was asked several times in a row, at once."""
        asked, self._inbox = self._inbox, []
        for kind, messages in groupby(asked, key=lambda message: message[0]):
            said = [message for _, message in messages]
            if kind == "wait":
                await self._hold([waiter for waiters in said for waiter in waiters])
            elif kind == "forget":
                await self._drop(said)
            else:
                for event, before in said:
                    await self._tell_those_here(event, before)
                    await self._tell_parts(event, before)

    async def _hold(self, waiters: list[Waiter]) -> None:
        if not self._divided:
            self._add(waiters)
            if len(self._waiting) <= HELD:
                return
            waiters, self._waiting, self._divided = [*self._waiting.values()], {}, True
        parted: dict[int, list[Waiter]] = {}
        for waiter in waiters:
            parted.setdefault(self._part_of(waiter), []).append(waiter)
        await asyncio.gather(*(self._hold_in_part(part, each) for part, each in parted.items()))

    def _add(self, waiters: list[Waiter]) -> None:
        self._waiting.update({(waiter["run"], waiter["key"]): waiter for waiter in waiters})

    async def _drop(self, waiters: list[Waiter]) -> None:
        if self._divided:
            await asyncio.gather(*(self._to_part(self._part_of(waiter), "forget", waiter) for waiter in waiters))
        for waiter in waiters:
            self._waiting.pop((waiter["run"], waiter["key"]), None)

    # -- telling

    async def _tell_those_here(self, event: dict[str, Any], before: float | None) -> None:
        told = [each for each in self._waiting.values() if before is None or each["since"] < before]
        for waiter in told:
            del self._waiting[waiter["run"], waiter["key"]]
        # Not awaited: a run that cannot be reached must not hold up the events behind this one.
        self._spawn(self._tell_all(told, event))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_all(self, waiters: list[Waiter], event: dict[str, Any]) -> None:
        at_once = max(1, min(TOLD_AT_ONCE, TASK_BYTES // len(json.dumps(event))))
        for place in range(0, len(waiters), at_once):
            if workflow.info().get_current_history_size() > ROOM:
                await self._start(f"rest-{workflow.uuid4()}", {"waiting": waiters[place:], "event": event})
                return
            told = waiters[place : place + at_once]
            # One that cannot be signalled has ended meanwhile.
            await asyncio.gather(*(_signal(each["run"], DELIVER, each["key"], event) for each in told))

    # -- parts

    def _part_of(self, waiter: Waiter) -> int:
        return int(derive_id("part", workflow.info().workflow_id, waiter["run"]), 16) % PARTS

    async def _hold_in_part(self, part: int, waiters: list[Waiter]) -> None:
        if not await self._to_part(part, "wait", waiters):
            await self._start(str(part), {"waiting": waiters})

    async def _tell_parts(self, event: dict[str, Any], before: float | None) -> None:
        if self._divided:
            told = await asyncio.gather(*(self._to_part(part, "offer", event, before) for part in range(PARTS)))
            self._divided = any(told)

    async def _to_part(self, part: int, signal: str, *args: Any) -> bool:
        """Signal a part; whether it is there: it ends when nobody waits in it."""
        return await _signal(f"{workflow.info().workflow_id}/{part}", signal, *args)

    async def _start(self, name: str, state: dict[str, Any]) -> None:
        await workflow.start_child_workflow(
            WAIT_HUB,
            state,
            id=f"{workflow.info().workflow_id}/{name}",
            task_timeout=workflow.info().task_timeout,
            parent_close_policy=ParentClosePolicy.ABANDON,
        )


async def _signal(workflow_id: str, signal: str, *args: Any) -> bool:
    """Signal a workflow; whether it is there."""
    try:
        await workflow.get_external_workflow_handle(workflow_id).signal(signal, args=args)
    except ApplicationError:
        return False
    return True
