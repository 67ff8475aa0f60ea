"""A run's records, read from Temporal's own history: no worker is needed for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.events import DELIVER
from durably.backends.temporal.outcome import ended_with, how_it_failed
from durably.backends.temporal.payloads import (
    ATTEMPT,
    INPUT,
    RECALL,
    RETRY,
    SEND,
    STATUS,
    WAIT,
    Call,
    note,
    text_of,
    unpack,
)
from durably.core import Event, RunNotFoundError
from durably.core.backend import RunStatus, RunView, invoke_error
from durably.core.errors import error_to_json
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.replay import MAYBE_EVENT
from durably.core.step_errors import interrupted, invoke_timeout

__all__ = ["Recorder", "read_records"]

_KINDS: dict[str, Kind] = {SEND: "send_event", WAIT: "wait_for_event"}


async def read_records(client: Client, run_id: str, history: str | None = None) -> list[StepRecord]:
    """The records of a run.

    Args:
        client: The way to the server.
        run_id: The run.
        history: Temporal's id of one of its histories; left out, the newest.

    Raises:
        RunNotFoundError: If Temporal has no such workflow, or has it no more.
    """
    recorder = Recorder(client, run_id)
    try:
        async for event in client.get_workflow_handle(run_id, run_id=history).fetch_history_events():
            await recorder.read(event)
        if recorder.earlier:
            return await read_records(client, run_id, recorder.earlier)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise RunNotFoundError(run_id) from None
        raise
    return recorder.records


class Recorder:
    """Goes through a history once. Each method is named after the kind of event it reads.

    Args:
        client: The way to the server.
        run_id: The run.

    Attributes:
        records: What it has come to so far.
        earlier: The history before, as long as its records have not been taken over.
    """

    def __init__(self, client: Client, run_id: str) -> None:
        self.records: list[StepRecord] = []
        self._converter = client.data_converter
        self._run_id = run_id
        self.earlier = ""
        self._open: dict[str, tuple[StepRecord, Call]] = {}
        self._attempts: dict[int, int] = {}
        self._waits: dict[str, StepRecord] = {}
        self._early: dict[str, str] = {}
        self._cancelled = False

    async def read(self, event: HistoryEvent) -> None:
        """Take one event into account; most say nothing about steps."""
        kind = event.WhichOneof("attributes") or ""
        read = getattr(self, "_" + kind.removesuffix("_event_attributes"), None)
        if read is not None:
            await read(event, getattr(event, kind), event.event_time.ToMicroseconds() / 1e6)

    def begun(self) -> list[StepRecord]:
        """The records of steps that are under way, in the order in which they began."""
        return [begun for begun, _ in self._open.values() if not begun.key.startswith("durably:")]

    # -- the run

    async def _workflow_execution_started(self, event: HistoryEvent, said: Any, at: float) -> None:
        first, *rest = await self._decode(said.input.payloads)
        self.earlier = json.loads(text_of(rest[0])).get("continued", "") if rest else ""
        self._add("", "run", "started", at, name=said.workflow_type.name, output=text_of(first))

    async def _workflow_execution_cancel_requested(self, event: HistoryEvent, said: Any, at: float) -> None:
        self._cancelled = True

    async def _workflow_execution_completed(self, event: HistoryEvent, said: Any, at: float) -> None:
        [value] = await self._decode(said.result.payloads)
        if note(value, STATUS) is None:
            self._end("completed", at, output=text_of(value))
        else:
            self._end("cancelled", at)

    async def _workflow_execution_failed(self, event: HistoryEvent, said: Any, at: float) -> None:
        _, error = how_it_failed(await self._failure(said.failure))
        if error is not None and error["type"] == "NonDeterminismError" and not error["step"]:
            # Temporal does not always say which step it is; it is none after the last one it has.
            error = {
                **error,
                "step": self.records[-1].key,
                "recorded": f"it, or a step before {self.records[-1].key!r}",
            }
        self._end("failed", at, error=error)

    async def _workflow_execution_timed_out(self, event: HistoryEvent, said: Any, at: float) -> None:
        self._end("failed", at, error={"type": "TimeoutError", "message": "Temporal's own time limit is over"})

    async def _workflow_execution_canceled(self, event: HistoryEvent, said: Any, at: float) -> None:
        self._end("cancelled", at)

    async def _workflow_execution_terminated(self, event: HistoryEvent, said: Any, at: float) -> None:
        self._end("cancelled", at)

    # -- activities

    async def _activity_task_scheduled(self, event: HistoryEvent, said: Any, at: float) -> None:
        first, *args = await self._decode(said.input.payloads)
        call = Call.from_raw(first)
        name = json.loads(text_of(args[0])) if call.body == WAIT else ""
        begun = self._new(said.activity_id, _KINDS.get(call.body, "step"), "started", at, input=call.input, name=name)
        self._open[f"activity {event.event_id}"] = begun, call
        if call.once:
            self._append(begun)

    async def _activity_task_started(self, event: HistoryEvent, said: Any, at: float) -> None:
        self._attempts[said.scheduled_event_id] = said.attempt

    async def _activity_task_completed(self, event: HistoryEvent, said: Any, at: float) -> None:
        begun, call = self._open.pop(f"activity {said.scheduled_event_id}")
        if call.body == WAIT:
            self._append(begun)
            if begun.key in self._early:
                self._settle(begun, at, output=self._early.pop(begun.key))
            else:
                self._waits[begun.key] = begun
            return
        [value] = await self._decode(said.result.payloads)
        if call.body == RECALL:
            packed, more = json.loads(text_of(value))
            self._take_over(unpack(packed), more)
        elif not begun.key.startswith("durably:"):
            attempt = self._attempts.get(said.scheduled_event_id, 1)
            self._settle(begun, at, attempt=attempt, output=text_of(value))

    async def _activity_task_failed(self, event: HistoryEvent, said: Any, at: float) -> None:
        begun, _ = self._open.pop(f"activity {said.scheduled_event_id}")
        attempt = self._attempts.get(said.scheduled_event_id, 1)
        _, error = how_it_failed(await self._failure(said.failure))
        self._settle(begun, at, attempt=attempt, error=error)

    async def _activity_task_timed_out(self, event: HistoryEvent, said: Any, at: float) -> None:
        begun, _ = self._open.pop(f"activity {said.scheduled_event_id}")
        self._settle(begun, at, error=error_to_json(interrupted(begun.key)))

    async def _marker_recorded(self, event: HistoryEvent, said: Any, at: float) -> None:
        if said.marker_name != "core_local_activity":
            return
        data = json.loads(said.details["data"].payloads[0].data)
        key, result = data["activity_id"], said.details.get("result")
        if result is not None:
            [value] = await self._decode(result.payloads)
            begun = self._new(key, "step", "started", at, input=note(value, INPUT) or "")
            self._settle(begun, at, attempt=int(note(value, ATTEMPT) or 1), output=text_of(value))
            return
        failure = await self._failure(said.failure)
        cause = failure.cause if isinstance(failure, ActivityError) else failure
        details = cause.details if isinstance(cause, ApplicationError) else ()
        begun = self._new(key, "step", "started", at)
        _, error = how_it_failed(cause)
        if len(details) > 1 and isinstance(details[1], str):
            self._settle(self._new(key, "step", "started", at, input=details[1]), at, error=error)
        elif len(details) > 1:
            delay, asked = float(details[1]), details[2]
            self._append(self._new(key, "step", "retrying", at, input=asked, error=error, due=at + delay))
        else:
            self._settle(begun, at, error=error)

    def _take_over(self, records: Sequence[StepRecord], more: bool) -> None:
        if records and records[0].kind == "run" and records[0].seq == 0:
            self.records.clear()  # the run began in that history
        for record in records:
            self._append(record)
        if not more:
            self.earlier = ""

    # -- timers, events, children

    async def _timer_started(self, event: HistoryEvent, said: Any, at: float) -> None:
        if event.user_metadata.HasField("summary"):
            [summary] = await self._converter.decode([event.user_metadata.summary], [str])
            due = at + said.start_to_fire_timeout.ToMicroseconds() / 1e6
            if summary.startswith(RETRY):
                attempt, _, why = summary.removeprefix(RETRY).partition(" ")
                kind, _, message = why.partition(": ")
                error, name = {"type": kind, "message": message}, self.records[0].name
                self._add("", "run", "retrying", at, name=name, attempt=int(attempt), error=error, due=due)
                return
            key, _, asked = summary.rpartition(" ")
            begun = self._new(key, "sleep", "started", at, input=asked, due=due)
            self._open[f"timer {said.timer_id}"] = begun, Call(body="")
            self._append(begun)

    async def _timer_fired(self, event: HistoryEvent, said: Any, at: float) -> None:
        begun, _ = self._open.pop(f"timer {said.timer_id}", (None, None))
        if begun is not None:
            self._settle(begun, at, output="null")

    async def _workflow_execution_signaled(self, event: HistoryEvent, said: Any, at: float) -> None:
        if said.signal_name == DELIVER:
            first, data = await self._decode(said.input.payloads)
            key = json.loads(text_of(first))
            seen = MAYBE_EVENT.encode(Event.model_validate_json(text_of(data)), step=key)
            begun = self._waits.pop(key, None)
            if begun is not None:
                self._settle(begun, at, output=seen)
            else:  # it came before the hub's answer to the registration, or twice
                self._early.setdefault(key, seen)

    async def _signal_external_workflow_execution_initiated(self, event: HistoryEvent, said: Any, at: float) -> None:
        if said.signal_name == "forget":
            [waiter] = await self._decode(said.input.payloads)
            data = json.loads(text_of(waiter))
            begun = self._waits.pop(data["key"], None)
            if begun is not None and data["timed_out"]:
                self._settle(begun, at, output="null")

    async def _start_child_workflow_execution_initiated(self, event: HistoryEvent, said: Any, at: float) -> None:
        payloads = await self._decode(said.input.payloads)
        if len(payloads) > 1:
            origin = json.loads(text_of(payloads[1]))
            due = None if origin["timeout"] is None else at + origin["timeout"]
            begun = self._new(
                origin["key"],
                "invoke",
                "started",
                at,
                input=origin["input"],
                name=said.workflow_type.name,
                output=json.dumps(said.workflow_id),
                due=due,
            )
            self._open[f"child {said.workflow_id}"] = begun, Call(body="", timeout=origin["timeout"])
            self._append(begun)

    async def _child_workflow_execution_completed(self, event: HistoryEvent, said: Any, at: float) -> None:
        [value] = await self._decode(said.result.payloads)
        status = ended_with(value)
        await self._child_ended(said, at, status, output=text_of(value))

    async def _child_workflow_execution_failed(self, event: HistoryEvent, said: Any, at: float) -> None:
        status, error = how_it_failed(await self._failure(said.failure))
        await self._child_ended(said, at, status, error=error)

    async def _child_workflow_execution_canceled(self, event: HistoryEvent, said: Any, at: float) -> None:
        await self._child_ended(said, at, RunStatus.CANCELLED)

    async def _child_workflow_execution_terminated(self, event: HistoryEvent, said: Any, at: float) -> None:
        await self._child_ended(said, at, RunStatus.CANCELLED)

    async def _request_cancel_external_workflow_execution_initiated(
        self, event: HistoryEvent, said: Any, at: float
    ) -> None:
        begun, call = self._open.pop(f"child {said.workflow_execution.workflow_id}", (None, None))
        if begun is not None and call is not None and not self._cancelled:
            self._settle(begun, at, error=error_to_json(invoke_timeout(begun.key, begun.name, call.timeout)))

    async def _child_ended(
        self,
        said: Any,
        at: float,
        status: RunStatus,
        *,
        output: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        child = said.workflow_execution.workflow_id
        begun, _ = self._open.pop(f"child {child}", (None, None))
        if begun is None:
            return
        if status is RunStatus.COMPLETED:
            self._settle(begun, at, output=output)
        else:
            view = RunView(id=child, function=begun.name, status=status, error=error)
            self._settle(begun, at, error=error_to_json(invoke_error(view, step=begun.key)))

    # -- records

    async def _decode(self, payloads: Sequence[Payload]) -> list[RawValue]:
        decoded: list[RawValue] = await self._converter.decode(payloads, [RawValue] * len(payloads))
        return decoded

    async def _failure(self, failure: Failure) -> BaseException:
        return await self._converter.decode_failure(failure)

    def _new(self, key: str, kind: Kind, status: RecordStatus, at: float, **fields: Any) -> StepRecord:
        return StepRecord(self._run_id, len(self.records), key, kind, status, at=at, **fields)

    def _add(self, key: str, kind: Kind, status: RecordStatus, at: float, **fields: Any) -> None:
        self.records.append(self._new(key, kind, status, at, **fields))

    def _append(self, record: StepRecord) -> None:
        self.records.append(replace(record, seq=len(self.records)))

    def _settle(self, begun: StepRecord, at: float, *, error: dict[str, Any] | None = None, **fields: Any) -> None:
        status: RecordStatus = "completed" if error is None else "failed"
        name = begun.name if begun.kind != "step" else ""
        fields = {"input": begun.input, "name": name, "took": max(0.0, at - begun.at), "error": error, **fields}
        self._add(begun.key, begun.kind, status, at, **fields)

    def _end(self, status: RecordStatus, at: float, **fields: Any) -> None:
        self._add("", "run", status, at, name=self.records[0].name, took=at - self.records[0].at, **fields)
