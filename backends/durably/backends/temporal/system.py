"""The library's own activities, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from temporalio.client import Client

from durably.backends.temporal.events import EventHubClient
from durably.backends.temporal.history.reader import read_records
from durably.backends.temporal.payloads import CLAIM, PAUSE, RECALL, SEND, WAIT, pack
from durably.backends.temporal.singleton import SingletonClient
from durably.core.history import StepRecord

__all__ = ["SystemActivities"]


class SystemActivities:
    """The activities behind ``send_event``, ``wait_for_event``, ``singleton`` and a run's second history.

    Args:
        hubs: The way to event hubs.
        locks: The way to singleton locks.
        client: The way to histories.
    """

    def __init__(self, hubs: EventHubClient, locks: SingletonClient, client: Client) -> None:
        self._hubs = hubs
        self._locks = locks
        self._client = client
        self._recalled: tuple[str, list[StepRecord]] = ("", [])

    def by_name(self) -> Mapping[str, Callable[..., Any]]:
        """The activities, under the names that requests have for them."""
        return {
            SEND: self._hubs.send,
            WAIT: self._wait,
            CLAIM: self._locks.claim,
            RECALL: self._recall,
            PAUSE: _nothing,
        }

    async def _wait(self, name: str, run_id: str, key: str, match: dict[str, Any]) -> None:
        await self._hubs.signal(name, "wait", {"run": run_id, "key": key, "match": match})

    async def _recall(self, run_id: str, history: str, place: int) -> tuple[str, bool]:
        """A piece of what a run came to in an earlier history, from one place on, and whether there are more."""
        known, records = self._recalled
        if known != history:
            records = await read_records(self._client, run_id, history)
        packed, count = pack(records[place:])
        more = place + count < len(records)
        # Kept between the pieces: to read a long history again for each would take as long as the run took.
        self._recalled = (history, records) if more else ("", [])
        return packed, more


async def _nothing() -> None:
    """A pause: the workflow's task is completed, and its history written."""
