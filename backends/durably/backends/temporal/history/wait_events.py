"""Sleeps, waits for events, and the delays between attempts of the function, in a history."""

from __future__ import annotations

import json
from typing import Any

from temporalio.api.history.v1 import HistoryEvent

from durably.backends.temporal.event_inbox import EventInbox, waits_at_run
from durably.backends.temporal.history.payload_reader import PayloadReader
from durably.backends.temporal.history.record_list import RecordList
from durably.backends.temporal.payloads import DELIVER, OFFER, RETRY, text_of
from durably.core import Event
from durably.core.history import StepRecord
from durably.core.replay import MAYBE_EVENT

__all__ = ["WaitEvents"]


class WaitEvents:
    """Reads the events of timers and signals. Each method is named after the kind of event it reads.

    Args:
        run_id: The run.
        records: Where records are put.
        payloads: Reads what the client encoded.
    """

    def __init__(self, run_id: str, records: RecordList, payloads: PayloadReader) -> None:
        self._run_id = run_id
        self._list = records
        self._payloads = payloads
        self._waits: dict[str, StepRecord] = {}
        self._early: dict[str, str] = {}
        self._expected = EventInbox()
        self._task_began = 0.0

    async def timer_started(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        if event.user_metadata.HasField("summary"):
            summary = await self._payloads.read_text(event.user_metadata.summary)
            due = at + attributes.start_to_fire_timeout.ToMicroseconds() / 1e6
            if summary.startswith(RETRY):
                attempt, _, why = summary.removeprefix(RETRY).partition(" ")
                kind, _, message = why.partition(": ")
                self._list.retry_run(int(attempt), {"type": kind, "message": message}, due, at)
                return
            key, _, asked = summary.rpartition(" ")
            begun = self._list.new(key, "sleep", "started", at, input=asked, due=due)
            self._list.begin(f"timer {attributes.timer_id}", begun)
            self._list.append(begun)

    async def timer_fired(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        begun = self._list.end(f"timer {attributes.timer_id}")
        if begun is not None:
            self._list.settle(begun, at, output="null")

    async def workflow_task_started(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self._task_began = at

    def begun(self, key: str, name: str, match: dict[str, Any] | None) -> None:
        """A step waits from now on; ``match`` is ``None`` where it travels by reference."""
        if waits_at_run(self._run_id, name, match or {}):
            self._expected.expect(key, name, match or {}, self._task_began)

    def registered(self, begun: StepRecord, at: float) -> None:
        """A wait is known to the hub of its event, which may have answered already."""
        self._list.append(begun)
        if begun.key in self._early:
            self._list.settle(begun, at, output=self._early.pop(begun.key))
        else:
            self._waits[begun.key] = begun

    async def workflow_execution_signaled(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        if attributes.signal_name == DELIVER:
            first, data = await self._payloads.read(attributes.input.payloads)
            self._came(json.loads(text_of(first)), text_of(data), at)
        elif attributes.signal_name == OFFER:
            [offer] = await self._payloads.read(attributes.input.payloads)
            said = json.loads(text_of(offer))
            for key in self._expected.offer(said["event"], said["before"]):
                self._came(key, json.dumps(said["event"]), at)

    def _came(self, key: str, event: str, at: float) -> None:
        seen = MAYBE_EVENT.encode(Event.model_validate_json(event), step=key)
        begun = self._waits.pop(key, None)
        if begun is not None:
            self._list.settle(begun, at, output=seen)
        else:  # it came before the answer to the registration, or twice
            self._early.setdefault(key, seen)

    async def signal_external_workflow_execution_initiated(
        self, event: HistoryEvent, attributes: Any, at: float
    ) -> None:
        if attributes.signal_name == "forget":
            [waiter] = await self._payloads.read(attributes.input.payloads)
            data = json.loads(text_of(waiter))
            self._expected.forget(data["key"])
            begun = self._waits.pop(data["key"], None)
            if begun is not None and data["timed_out"]:
                self._list.settle(begun, at, output="null")
