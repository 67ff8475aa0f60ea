"""The runs that wait for events of one name: a fixed number of hubs shares them, by the values that they wait for.

Such a hub is there while somebody waits. Whoever sends an event finds the hub by the values that the event has, and the
hub finds by them who waits, so an event meets those alone that it can match. What a hub holds is bounded: of more, it
hands all to parts, which are hubs of their own. It goes on in a fresh history when its own is long; senders hold off
until it has (`hub_client.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from datetime import timedelta
from itertools import groupby
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ParentClosePolicy

from durably.backends.temporal.delivery import DELIVER_ALL, Delivery, lots_of
from durably.backends.temporal.hub_names import WAIT_HUB
from durably.backends.temporal.payloads import DELIVER
from durably.backends.temporal.waiters import Waiter, Waiters, pack_waiters, unpack_waiters
from durably.core.ids import derive_id

__all__ = ["BEGIN", "LONG", "Offer", "WaitHub"]

LONG = 4_000
"""A history of so many events takes no more: a hub goes on in a fresh one. Temporal allows 10,000 signals in one."""

QUIET = timedelta(seconds=0.3)
"""How long no signal must have come before a hub goes on, or ends: one in that very moment would make its task fail."""

HELD = 1_200_000
"""How many characters of waiters one hub holds, some 7,500; of more it hands all to its parts. It goes on with what it
holds compressed to a fifth, and what cannot be compressed has room in a payload too: 2 MB."""

HELD_BEFORE = 400_000
"""And how many a hub holds that has not begun with `BEGIN`."""

PARTS = 16

EVENTS_AT_ONCE = 50
"""How many events a hub hands on in one task: Temporal takes one that computes for 2 seconds for stuck."""

TOLD_AT_ONCE = 200
"""How many runs are told of an event at once; Temporal allows 2,000 signals under way."""

NO_LIMIT = timedelta(days=3650)
"""Temporal wants a limit. Runs are told until they know, or have ended."""

TASK_BYTES = 2_000_000
"""And how many bytes of the event in all: Temporal takes up to 4 MB from one task."""

ROOM = 10_000_000
"""A history of so many bytes is left to those who are still to be told of a large event, in one of their own."""


BEGIN = {"delivers": True}
"""What a hub begins with. One without it began under an earlier version: until it goes on in a fresh history, it tells
runs by commands of its own, which stand in its history."""

Offer = dict[str, Any]
"""An ``event``, the ``values`` that it has, and ``before``: it is for those who have waited since a moment earlier than
this, if it is not ``None``."""


@workflow.defn(name=WAIT_HUB)
class WaitHub:
    """Tells the runs that wait for something when it has come. Each is told once, and then waits here no more."""

    def __init__(self) -> None:
        self._inbox: list[tuple[str, Any]] = []
        self._waiting = Waiters()
        self._is_part = False
        self._delivers = False
        self._parts: set[int] = set()
        self._telling: set[asyncio.Task[None]] = set()

    @workflow.run
    async def run(self, state: dict[str, Any]) -> None:
        """Go on until nobody waits here.

        Args:
            state: Those who wait, ``packed`` or in a list, ``waiting``; the ``parts`` among which they were divided;
                whether this is a ``part`` itself, and whether it ``delivers`` by an activity. With an ``event``: what
                all who wait are to be told.
        """
        packed = state.get("packed")
        self._waiting = Waiters(state.get("waiting", ()) if packed is None else unpack_waiters(packed))
        self._delivers = state.get("delivers", False)
        self._parts = set(state.get("parts", ()))
        self._is_part = state.get("part", False)
        if "event" in state:
            values = sorted({waiter["value"] for waiter in self._waiting})
            self.offer([{"event": state["event"], "before": None, "values": values}])
        while True:
            if self._inbox:
                await self._work()
            elif self._telling:
                await workflow.wait_condition(lambda: bool(self._inbox) or not self._telling)
            elif not self._waiting and not self._parts:
                if await self._is_quiet():
                    return
            elif workflow.info().get_current_history_length() >= LONG:
                if await self._is_quiet():
                    await self._continue()
            else:
                await workflow.wait_condition(lambda: bool(self._inbox))

    async def _is_quiet(self) -> bool:
        """Whether no signal comes for a while: of senders that had looked before this hub was long, or had waiters."""
        try:
            await workflow.wait_condition(lambda: bool(self._inbox), timeout=QUIET)
        except TimeoutError:
            return True
        return False

    async def _continue(self) -> None:
        """Go on in a fresh history, without the parts that have ended."""
        parts = sorted(self._parts)
        there = await asyncio.gather(*(self._to_part(part, "wait", []) for part in parts))
        self._parts = {part for part, is_there in zip(parts, there, strict=True) if is_there}
        if not self._inbox:
            packed = pack_waiters(self._waiting)
            workflow.continue_as_new({**BEGIN, "packed": packed, "parts": sorted(self._parts), "part": self._is_part})

    @workflow.signal(name="wait")
    def wait(self, waiters: list[Waiter]) -> None:
        """Runs wait from now on."""
        self._inbox.append(("wait", waiters))

    @workflow.signal(name="forget")
    def forget(self, waiter: Waiter) -> None:
        """A run waits no longer."""
        self._inbox.append(("forget", waiter))

    @workflow.signal(name="offer")
    def offer(self, offers: list[Offer]) -> None:
        """Events have come."""
        self._inbox.append(("offer", offers))

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
                await self._tell(said)

    async def _hold(self, waiters: list[Waiter]) -> None:
        if not self._parts:
            for waiter in waiters:
                self._waiting.add(waiter)
            if self._waiting.size <= (HELD if self._delivers else HELD_BEFORE):
                return
            waiters, self._waiting = [*self._waiting], Waiters()
        parted: dict[int, list[Waiter]] = {}
        for waiter in waiters:
            parted.setdefault(self._part_of(waiter), []).append(waiter)
        self._parts.update(parted)
        await asyncio.gather(*(self._hold_in_part(part, each) for part, each in parted.items()))

    async def _drop(self, waiters: list[Waiter]) -> None:
        for waiter in waiters:
            self._waiting.drop(waiter["run"], waiter["key"])
        parted = [(self._part_of(waiter), waiter) for waiter in waiters]
        await asyncio.gather(*(self._to_part(part, "forget", each) for part, each in parted if part in self._parts))

    # -- telling

    async def _tell(self, said: list[list[Offer]]) -> None:
        deliveries: list[Delivery] = []
        for offer in (each for offers in said for each in offers):
            told = self._waiting.take(offer["values"], offer["before"])
            if told and self._delivers:
                deliveries.append({"event": offer["event"], "to": [[each["run"], each["key"]] for each in told]})
            elif told:
                if len(self._telling) >= EVENTS_AT_ONCE:
                    await workflow.wait_condition(lambda: len(self._telling) < EVENTS_AT_ONCE)
                # Not awaited: a run that cannot be reached must not hold up the events behind this one.
                self._spawn(self._tell_all(told, offer["event"]))
        if deliveries:
            self._spawn(self._deliver_all(deliveries))
        # A signal to a part has no more than what came with one signal, so it is not too large.
        await asyncio.gather(*(self._tell_part(*each) for offers in said for each in self._parted(offers).items()))

    def _parted(self, offers: list[Offer]) -> dict[int, list[Offer]]:
        """What each part is to be told, in a fixed order: for those parts in which somebody may wait for it."""
        parted: dict[int, list[Offer]] = {}
        for offer in offers:
            parts = {_part("value", value) for value in offer["values"]}
            for part in sorted(self._parts if self._is_part else self._parts & parts):
                parted.setdefault(part, []).append(offer)
        return parted

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _deliver_all(self, deliveries: list[Delivery]) -> None:
        for lot in lots_of(deliveries, TOLD_AT_ONCE):
            await workflow.execute_local_activity(DELIVER_ALL, lot, start_to_close_timeout=NO_LIMIT)

    async def _tell_all(self, waiters: list[Waiter], event: dict[str, Any]) -> None:
        at_once = max(1, min(TOLD_AT_ONCE, TASK_BYTES // len(json.dumps(event))))
        for place in range(0, len(waiters), at_once):
            if workflow.info().get_current_history_size() > ROOM:
                rest = {**BEGIN, "waiting": waiters[place:], "event": event, "part": True}
                await self._start(f"rest-{workflow.uuid4()}", rest)
                return
            told = waiters[place : place + at_once]
            # One that cannot be signalled has ended meanwhile.
            await asyncio.gather(*(_signal(each["run"], DELIVER, each["key"], event) for each in told))

    # -- parts

    def _part_of(self, waiter: Waiter) -> int:
        # By what is waited for, so that an event meets one part; a part may have no more than one value.
        return _part("run", waiter["run"]) if self._is_part else _part("value", waiter["value"])

    async def _hold_in_part(self, part: int, waiters: list[Waiter]) -> None:
        if not await self._to_part(part, "wait", waiters):
            await self._start(str(part), {**BEGIN, "packed": pack_waiters(waiters), "part": True})

    async def _tell_part(self, part: int, offers: list[Offer]) -> None:
        if not await self._to_part(part, "offer", offers):
            self._parts.discard(part)

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


def _part(kind: str, key: str) -> int:
    return int(derive_id("part", kind, key), 16) % PARTS


async def _signal(workflow_id: str, signal: str, *args: Any) -> bool:
    """Signal a workflow; whether it is there."""
    try:
        await workflow.get_external_workflow_handle(workflow_id).signal(signal, args=args)
    except ApplicationError:
        return False
    return True
