"""Telling runs of the events that they wait for: an activity of hubs, in their own process.

A signal that a hub sends as a command costs the server two events in the hub's history, and one more task of the hub.
The client's costs what any signal does, and what came with one task of the hub goes at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.pauses import pauses
from durably.backends.temporal.payloads import DELIVER

__all__ = ["DELIVER_ALL", "Delivery", "RunTeller", "lots_of"]

log = logging.getLogger(__name__)

DELIVER_ALL = "durably.deliver"

SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds before a run that could not be reached is told again."""

Delivery = dict[str, Any]
"""An ``event``, and whom it goes ``to``: runs, and the keys of their steps."""


class RunTeller:
    """Tells runs what has come for their steps.

    Args:
        tell: Signals a workflow, unless it has ended.
    """

    def __init__(self, tell: Callable[..., Awaitable[None]]) -> None:
        self._tell = tell

    @activity.defn(name=DELIVER_ALL)
    async def deliver_all(self, deliveries: list[Delivery]) -> None:
        """Tell all of them. Done again after a crash, a run may be told twice: the first time counts."""
        told = [(run, key, each["event"]) for each in deliveries for run, key in each["to"]]
        await asyncio.gather(*(self._deliver(*each) for each in told))

    async def _deliver(self, run: str, key: str, event: dict[str, Any]) -> None:
        pause = pauses(SHORTEST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                return await self._tell(run, DELIVER, key, event)
            except RPCError as error:
                if error.status is RPCStatusCode.INVALID_ARGUMENT:  # such as a history with 10,000 signals
                    log.warning("run %s cannot be told of an event for step %r: %s", run, key, error)
                    return None
            await asyncio.sleep(next(pause))


def lots_of(deliveries: Iterable[Delivery], most: int) -> Iterator[list[Delivery]]:
    """The same deliveries, in lots that have no more runs than this."""
    lot: list[Delivery] = []
    room = most
    for delivery in deliveries:
        rest = delivery["to"]
        while rest:
            told, rest = rest[:room], rest[room:]
            lot.append({"event": delivery["event"], "to": told})
            room -= len(told)
            if not room:
                yield lot
                lot, room = [], most
    if lot:
        yield lot
