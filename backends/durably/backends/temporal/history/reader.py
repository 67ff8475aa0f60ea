"""Goes through the history of a run once, and puts its records together."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.history.activity_events import ActivityEvents
from durably.backends.temporal.history.child_events import ChildEvents
from durably.backends.temporal.history.payload_reader import PayloadReader
from durably.backends.temporal.history.record_list import RecordList
from durably.backends.temporal.history.wait_events import WaitEvents
from durably.backends.temporal.outcome import failed_status
from durably.backends.temporal.payloads import PATCH, PATCHED, STATUS, STUCK, metadata_of, text_of
from durably.core import RunNotFoundError
from durably.core.history import StepRecord
from durably.core.repair import Origin
from durably.core.stuck import Stuck, stuck_by

__all__ = ["HistoryReader", "read_records"]


async def read_records(client: Client, run_id: str, history: str | None = None) -> list[StepRecord]:
    """The records of a run.

    Args:
        client: The way to the server.
        run_id: The run.
        history: Temporal's id of one of its histories; left out, the newest.

    Raises:
        RunNotFoundError: If Temporal has no such workflow, or has it no more.
    """
    reader = HistoryReader(client.data_converter, run_id)
    try:
        async for event in client.get_workflow_handle(run_id, run_id=history).fetch_history_events():
            await reader.read(event)
        if reader.earlier:
            # A fresh history that has not recalled the records of the one before has nothing to say yet.
            return await read_records(client, run_id, reader.earlier)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise RunNotFoundError(run_id) from None
        raise
    return reader.records


class HistoryReader:
    """Reads events into records.

    Args:
        converter: The client's: what it encrypted is read with it.
        run_id: The run.
    """

    def __init__(self, converter: DataConverter, run_id: str) -> None:
        self._list = RecordList(run_id)
        payloads = PayloadReader(converter)
        waits = WaitEvents(run_id, self._list, payloads)
        self._run = RunEvents(self._list, payloads)
        self._readers = (
            self._run,
            ActivityEvents(self._list, payloads, waits),
            waits,
            ChildEvents(self._list, payloads),
        )

    @property
    def records(self) -> list[StepRecord]:
        """The records so far."""
        return self._list.records

    @property
    def stuck(self) -> Stuck | None:
        """What of the code does not fit the run, while no worker has come with code that does."""
        return self._run.stuck

    @property
    def earlier(self) -> str:
        """Temporal's id of the history before this one, as long as its records have not been taken over."""
        return self._list.earlier

    def under_way(self) -> list[StepRecord]:
        """The first records of steps that are under way, in the order in which they began."""
        return self._list.under_way()

    async def read(self, event: HistoryEvent) -> None:
        """Take one event into account; most say nothing about steps."""
        kind = event.WhichOneof("attributes") or ""
        name = kind.removesuffix("_event_attributes")
        for reader in self._readers:
            read: Callable[[HistoryEvent, Any, float], Awaitable[None]] | None = getattr(reader, name, None)
            if read is not None:
                await read(event, getattr(event, kind), event.event_time.ToMicroseconds() / 1e6)


class RunEvents:
    """How the run began and ended. Each method is named after the kind of event it reads.

    Args:
        records: Where records are put.
        payloads: Reads what the client encoded.

    Attributes:
        stuck: What of the code did not fit the run, when a worker last tried it.
    """

    def __init__(self, records: RecordList, payloads: PayloadReader) -> None:
        self.stuck: Stuck | None = None
        self._list = records
        self._payloads = payloads

    async def workflow_execution_started(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        first, *rest = await self._payloads.read(attributes.input.payloads)
        origin = json.loads(text_of(rest[0])) if rest else {}
        earlier, forked = origin.get("continued", ""), origin.get("forked")
        source = "" if forked is None else Origin(forked["run_id"], forked["after"]).to_json()
        self._list.begin_run(attributes.workflow_type.name, text_of(first), at, earlier, origin.get("error"), source)

    async def workflow_task_completed(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self.stuck = None

    async def workflow_execution_signaled(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        if attributes.signal_name == STUCK:
            [error] = await self._payloads.read(attributes.input.payloads)
            name, data = self._list.records[0].name, json.loads(text_of(error))
            record = self._list.new("", "run", "stuck", at, name=name, error=data)
            self._list.append(record)
            self.stuck = stuck_by(record)

    async def marker_recorded(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        if attributes.marker_name == PATCH:
            patch_id = json.loads(attributes.details["patch-data"].payloads[0].data)["id"]
            if patch_id.startswith(PATCHED):  # others are the library's own
                name = patch_id.removeprefix(PATCHED)
                self._list.append(self._list.new("", "patch", "completed", at, name=name, output="true"))

    async def workflow_execution_completed(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        [value] = await self._payloads.read(attributes.result.payloads)
        if metadata_of(value, STATUS) is None:
            self._list.end_run("completed", at, output=text_of(value))
        else:
            self._list.end_run("cancelled", at)

    async def workflow_execution_failed(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        _, error = failed_status(await self._payloads.read_failure(attributes.failure))
        if error is not None and error["type"] == "NonDeterminismError" and not error["step"]:
            # Temporal does not always say which step it is; it is none after the last one it has.
            last = self._list.records[-1].key
            error = {**error, "step": last, "recorded": f"it, or a step before {last!r}"}
        self._list.end_run("failed", at, error=error)

    async def workflow_execution_timed_out(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        error = {"type": "TimeoutError", "message": "Temporal's own time limit is over"}
        self._list.end_run("failed", at, error=error)

    async def workflow_execution_canceled(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self._list.end_run("cancelled", at)

    async def workflow_execution_terminated(self, event: HistoryEvent, attributes: Any, at: float) -> None:
        self._list.end_run("cancelled", at)
