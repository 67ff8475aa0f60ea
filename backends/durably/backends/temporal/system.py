"""What the library itself does in activities, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temporalio.client import Client

from durably.backends.temporal.events import Post
from durably.backends.temporal.payloads import CLAIM, PAUSE, RECALL, SEND, WAIT, pack
from durably.backends.temporal.records import read_records
from durably.backends.temporal.singleton import Slots
from durably.core import Event
from durably.core.history import StepRecord

__all__ = ["SystemBodies"]


class SystemBodies:
    """The bodies behind ``send_event``, ``wait_for_event``, ``singleton`` and a run's second history.

    Args:
        post: The way to event hubs.
        slots: The way to singleton places.
        client: The way to histories.
    """

    def __init__(self, post: Post, slots: Slots, client: Client) -> None:
        self._post = post
        self._client = client
        self._recalled: tuple[str, list[StepRecord]] = ("", [])
        self._bodies: dict[str, Callable[..., Any]] = {
            SEND: self._send,
            WAIT: self._wait,
            CLAIM: slots.claim,
            RECALL: self._recall,
            PAUSE: _nothing,
        }

    def find(self, name: str) -> Callable[..., Any] | None:
        """The body of a name, or ``None`` if it is not one of these."""
        return self._bodies.get(name)

    async def _send(self, events: list[Event]) -> list[str]:
        return await self._post.send(events)

    async def _wait(self, name: str, run_id: str, key: str, match: dict[str, Any]) -> None:
        await self._post.tell(name, "wait", {"run": run_id, "key": key, "match": match})

    async def _recall(self, run_id: str, history: str, place: int) -> tuple[str, bool]:
        """A piece of what a run came to in an earlier history, from one place on, and whether there are more."""
        known, records = self._recalled
        if known != history:
            records = await read_records(self._client, run_id, history)
        packed, count = pack(records[place:])
        more = place + count < len(records)
        self._recalled = (history, records) if more else ("", [])
        return packed, more


async def _nothing() -> None:
    """A pause: the workflow's task is completed, and its history written."""
