"""Which runs wait in line behind a live one, for bodies of steps: the lock of their singleton key is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal.history.payload_reader import PayloadReader
from durably.backends.temporal.payloads import LINE, text_of
from durably.backends.temporal.singleton import lock_id
from durably.core import Event, Function
from durably.core.services import WaitingRun

__all__ = ["LineReader"]


class LineReader:
    """Reads lines of runs.

    Args:
        client: The way to the server.
        queue: The task queue of the locks.
        functions: What this worker serves, by id.
    """

    def __init__(self, client: Client, queue: str, functions: Mapping[str, Function[Any, Any]]) -> None:
        self._client = client
        self._queue = queue
        self._functions = functions
        self._payloads = PayloadReader(client.data_converter)

    async def behind(self, run_id: str, known: Collection[str]) -> list[WaitingRun]:
        """The runs that wait for the end of a run, in their order.

        Args:
            run_id: The run, which is live.
            known: Runs to leave out.
        """
        name, event = await self._start_of(run_id)
        lock = lock_id(self._queue, self._functions[name], event)
        if lock is None:
            return []
        try:
            # The server lets a query wait for the signals that came before it: who was started before it is in line.
            line = await self._client.get_workflow_handle(lock).query(LINE, run_id, result_type=list[str])
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:  # terminated, and so are those who waited at it
                return []
            raise
        return [WaitingRun(each, (await self._start_of(each))[1]) for each in line if each not in known]

    async def _start_of(self, run_id: str) -> tuple[str, Event]:
        """A run's function, and what started it: the first event of its history has both."""
        events = self._client.get_workflow_handle(run_id).fetch_history_events(page_size=1)
        started = (await anext(events)).workflow_execution_started_event_attributes
        first, *_ = await self._payloads.read(started.input.payloads)
        return started.workflow_type.name, Event.model_validate_json(text_of(first))
