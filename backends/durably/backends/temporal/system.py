"""The library's own activities, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from temporalio import activity
from temporalio.client import Client

from durably.backends.temporal.events import EventSender, Wait
from durably.backends.temporal.history.reader import read_records
from durably.backends.temporal.payloads import CLAIM, EXPECT, FIND, PAUSE, RECALL, SEND, WAIT, WAIT_TOGETHER, pack
from durably.backends.temporal.singleton import SingletonClient
from durably.core import Event
from durably.core.history import StepRecord
from durably.core.repair import Origin, prefix_records
from durably.core.run_events import step_event_id

__all__ = ["SystemActivities"]


class SystemActivities:
    """The activities behind ``send_event``, ``wait_for_event``, ``singleton`` and a run's second history.

    Args:
        events: Sends events, and registers those that wait.
        locks: The way to singleton locks.
        client: The way to histories.
    """

    def __init__(self, events: EventSender, locks: SingletonClient, client: Client) -> None:
        self._events = events
        self._locks = locks
        self._client = client
        self._recalled: tuple[tuple[str, str], list[StepRecord]] = (("", ""), [])

    def by_name(self) -> Mapping[str, Callable[..., Any]]:
        """The activities, under the names that requests have for them."""
        return {
            SEND: self._send,
            WAIT: self._wait,
            WAIT_TOGETHER: self._wait_together,
            EXPECT: self._expect,
            CLAIM: self._locks.claim,
            RECALL: self._recall,
            FIND: self._find,
            PAUSE: _nothing,
        }

    async def _send(self, events: list[Event]) -> list[str]:
        info = activity.info()
        derived = {step_event_id(info.workflow_id or "", info.activity_id, place) for place in range(len(events))}
        return await self._events.send(events, own={event.id for event in events} - derived, once=False)

    async def _wait(self, name: str, run_id: str, key: str, match: dict[str, Any]) -> str:
        """Register a run that waits for an event; the hub that will tell it."""
        [hub] = await self._wait_together(run_id, [(key, name, match, "")])
        return hub

    async def _wait_together(self, run_id: str, asked: list[tuple[str, str, dict[str, Any], str]]) -> list[str]:
        """Register several steps of a run; for each of them the hub that will tell it.

        Args:
            run_id: The run.
            asked: The key of each, the event's name, what must match, and what a record keeps of all that.
        """
        since = activity.info().scheduled_time.timestamp()
        waits = [Wait(key, name, match) for key, name, match, _ in asked]
        return await self._events.wait(waits, run_id, since)

    async def _expect(self, name: str, run_id: str, key: str, match: dict[str, Any]) -> str:
        """Write down that a run waits for an answer which comes to it; the hub that would tell it otherwise."""
        return self._events.hub_of(name, match)

    async def _recall(
        self, run_id: str, history: str, place: int, origin: dict[str, Any] | None = None
    ) -> tuple[str, bool]:
        """A piece of what a run begins with, from one place on, and whether there are more.

        Args:
            run_id: The run.
            history: Temporal's id of the history that has it.
            place: How many records are known.
            origin: Of a run that was retried, or forked from another one; ``None`` for one that only goes on.
        """
        known, records = self._recalled
        if known != (run_id, history):
            records = await self._beginning(run_id, history, origin or {})
        packed, count = pack(records[place:])
        more = place + count < len(records)
        # Kept between the pieces: to read a long history again for each would take as long as the run took.
        self._recalled = ((run_id, history), records) if more else (("", ""), [])
        return packed, more

    async def _beginning(self, run_id: str, history: str, origin: dict[str, Any]) -> list[StepRecord]:
        if "forked" in origin:
            source = origin["forked"]
            records = await read_records(self._client, source["run_id"], history)
            comes_from = Origin(source["run_id"], source["after"]).to_json()
            first = replace(records[0], run_id=run_id, input=comes_from, at=origin["at"])
            return prefix_records(records, source["cut"], first)
        records = await read_records(self._client, run_id, history)
        if "resumed" in origin:
            at, name = origin["resumed"], records[0].name
            records.append(StepRecord(run_id, len(records), "", "run", "resumed", name=name, at=at))
        return records

    async def _find(self, run_id: str) -> str:
        """Temporal's id of the newest history of a run."""
        return (await self._client.get_workflow_handle(run_id).describe()).run_id or ""


async def _nothing() -> None:
    """A pause: the workflow's task is completed, and its history written."""
