"""Steps whose bodies run as activities, in a history: those any worker finds, closures, the library's own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.exceptions import ActivityError, ApplicationError

from durably.backends.temporal.history.payload_reader import PayloadReader
from durably.backends.temporal.history.record_list import RecordList
from durably.backends.temporal.history.wait_events import WaitEvents
from durably.backends.temporal.outcome import failed_status
from durably.backends.temporal.payloads import (
    ATTEMPT,
    EXPECT,
    INPUT,
    LOCAL_ACTIVITY,
    RECALL,
    SEND,
    WAIT,
    WAIT_TOGETHER,
    ActivityRequest,
    metadata_of,
    text_of,
    unpack,
)
from durably.core.errors import error_to_json
from durably.core.history import Kind, StepRecord
from durably.core.step_errors import interrupted

__all__ = ["ActivityEvents"]

_KINDS: dict[str, Kind] = {SEND: "send_event", WAIT: "wait_for_event", EXPECT: "wait_for_event"}


class ActivityEvents:
    """Reads the events of activities. Each method is named after the kind of event it reads.

    Args:
        records: Where records are put.
        payloads: Reads what the client encoded.
        waits: Is told when a wait is registered.
    """

    def __init__(self, records: RecordList, payloads: PayloadReader, waits: WaitEvents) -> None:
        self._list = records
        self._payloads = payloads
        self._waits = waits
        self._requests: dict[int, ActivityRequest] = {}
        self._places: dict[int, list[str]] = {}
        self._attempts: dict[int, int] = {}

    async def activity_task_scheduled(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        first, *args = await self._payloads.read(attributes.input.payloads)
        request = self._requests[event.event_id] = ActivityRequest.from_payload(first)
        if request.body == WAIT_TOGETHER:
            waits = json.loads(text_of(args[1]))
            self._places[event.event_id] = [self._begin_wait(event.event_id, at, *wait) for wait in waits]
            return
        kind = _KINDS.get(request.body, "step")
        name = json.loads(text_of(args[0])) if kind == "wait_for_event" else ""
        if kind == "wait_for_event":
            self._waits.begun(attributes.activity_id, name, json.loads(text_of(args[3])))
        begun = self._list.new(attributes.activity_id, kind, "started", at, input=request.input, name=name)
        self._places[event.event_id] = [f"activity {event.event_id}"]
        self._list.begin(f"activity {event.event_id}", begun)
        if request.once:  # known as begun, so that a replay elsewhere takes it for interrupted and not for new
            self._list.append(begun)

    def _begin_wait(self, scheduled: int, at: float, key: str, name: str, match: dict[str, Any], asked: str) -> str:
        """One of several waits that an activity registers; under which name it is among the steps that have begun."""
        self._waits.begun(key, name, match)
        place = f"activity {scheduled} {key}"
        self._list.begin(place, self._list.new(key, "wait_for_event", "started", at, input=asked, name=name))
        return place

    async def activity_task_started(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self._attempts[attributes.scheduled_event_id] = attributes.attempt
        if attributes.HasField("last_failure"):
            await self._retried(attributes, at)

    async def _retried(self, attributes: Any, at: float) -> None:
        """The attempt before this one failed. Temporal keeps its failure until then, and of those before it nothing."""
        begun = self._list.began(f"activity {attributes.scheduled_event_id}")
        failure = await self._payloads.read_failure(attributes.last_failure)
        if begun is None or begun.kind != "step" or not isinstance(failure, ApplicationError) or not failure.details:
            return  # a crash, or a worker that stopped, and not the body
        _, error = failed_status(failure)
        attempt = attributes.attempt - 1
        self._list.append(replace(begun, status="retrying", attempt=attempt, error=error, due=at, at=at))

    async def activity_task_completed(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        begun, request, attempt = self._ended(attributes)
        if begun[0].kind == "wait_for_event":
            for each in begun:
                self._waits.registered(each, at)
            return
        [value] = await self._payloads.read(attributes.result.payloads)
        if request.body == RECALL:
            packed, more = json.loads(text_of(value))
            self._list.take_over(unpack(packed), more)
        elif not begun[0].key.startswith("durably:"):
            self._list.settle(begun[0], at, attempt=attempt, output=text_of(value))

    async def activity_task_failed(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        begun, _, attempt = self._ended(attributes)
        _, error = failed_status(await self._payloads.read_failure(attributes.failure))
        for each in begun:
            self._list.settle(each, at, attempt=attempt, error=error)

    async def activity_task_timed_out(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        begun, _, _ = self._ended(attributes)
        for each in begun:
            self._list.settle(each, at, error=error_to_json(interrupted(each.key)))

    def _ended(self, attributes: Any) -> tuple[list[StepRecord], ActivityRequest, int]:
        """The activity that an event ends: the first records of its steps, its request, and its last attempt."""
        scheduled = attributes.scheduled_event_id
        begun = [self._list.end(place) for place in self._places.pop(scheduled)]
        ended = [record for record in begun if record is not None]
        assert len(ended) == len(begun)  # its end comes once, after its beginning
        return ended, self._requests.pop(scheduled), self._attempts.get(scheduled, 1)

    async def marker_recorded(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        """An attempt of a closure: Temporal writes down a local activity only after it ran."""
        if attributes.marker_name != LOCAL_ACTIVITY:
            return
        key = json.loads(attributes.details["data"].payloads[0].data)["activity_id"]
        result = attributes.details.get("result")
        if result is not None:
            [value] = await self._payloads.read(result.payloads)
            begun = self._list.new(key, "step", "started", at, input=metadata_of(value, INPUT) or "")
            self._list.settle(begun, at, attempt=int(metadata_of(value, ATTEMPT) or 1), output=text_of(value))
            return
        failure = await self._payloads.read_failure(attributes.failure)
        cause = failure.cause if isinstance(failure, ActivityError) else failure
        details = cause.details if isinstance(cause, ApplicationError) else ()
        _, error = failed_status(cause)
        if len(details) > 1 and not isinstance(details[1], str):
            delay, asked = float(details[1]), details[2]
            retrying = self._list.new(key, "step", "retrying", at, input=asked, error=error, due=at + delay)
            self._list.append(retrying)
        else:
            asked = details[1] if len(details) > 1 else ""
            self._list.settle(self._list.new(key, "step", "started", at, input=asked), at, error=error)
