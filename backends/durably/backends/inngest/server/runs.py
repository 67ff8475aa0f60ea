"""Finding runs on Inngest by our ids, and what can be said of them: where they stand, how they went."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from durably.backends.inngest.apps import Apps
from durably.backends.inngest.events import Origin, read_event, start_event_id
from durably.backends.inngest.outcome import error_data
from durably.backends.inngest.records import decode_patches, decode_record, decode_result
from durably.backends.inngest.run_cache import RunCache
from durably.backends.inngest.server.trace_views import RunApi, RunInfo, SpanOutput
from durably.core import Event
from durably.core.cause import session_key_of
from durably.core.history import History, RecordStatus, StepRecord
from durably.core.run_view import RunStatus, RunView, WaitingFor
from durably.core.secrets import Redactor

__all__ = ["ServerRuns"]

logger = logging.getLogger("durably")

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TRACE_PATIENCE = 5.0
"""Seconds that a trace is given to be complete, after the end of its run."""

_END: dict[RunStatus, RecordStatus] = {
    RunStatus.COMPLETED: "completed",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
}
"""What the last record of a run says; one that was skipped has none."""


def unserved(run_id: str, function: str) -> RunView:
    """A run whose event is there, and which no app has been given yet."""
    since = time.time()
    worker = WaitingFor(kind="worker", since=since, name=function)
    return RunView(id=run_id, function=function, status=RunStatus.WAITING, waiting_for=(worker,))


class ServerRuns:
    """The runs of an environment.

    Args:
        api: Who asks the server.
        apps: Which app serves which function.
        cache: What this worker remembers of runs.

    Attributes:
        api: The same.
    """

    def __init__(self, api: RunApi, apps: Apps, cache: RunCache) -> None:
        self.api = api
        self._apps = apps
        self._cache = cache

    # -- views

    async def find(self, run_id: str) -> RunView | None:
        """A run by our id or Inngest's, or ``None``."""
        inngest_id = self._inngest_id(run_id)
        if inngest_id is not None:
            with suppress(LookupError):  # an event names its runs a little before they can be looked at
                return self._view(await self.api.run(inngest_id), run_id)
        return await self._find_by_event(run_id) or await self._find_child(run_id)

    def _inngest_id(self, run_id: str) -> str | None:
        return self._cache.inngest_ids.get(run_id) or (run_id if _ULID.fullmatch(run_id) else None)

    def has_begun(self, run_id: str) -> bool:
        """Whether Inngest has made a run, as far as it was looked at."""
        return self._inngest_id(run_id) is not None

    async def _find_by_event(self, run_id: str) -> RunView | None:
        """A run that a program started: the id of its event is known, since we fixed it."""
        event_id, function = self._cache.starts.get(run_id) or (start_event_id(run_id), "")
        try:
            runs = await self.api.runs_of_event(event_id)
            if not runs and not function:
                function = self._apps.function_id(await self.api.name_of_event(event_id))
        except LookupError:
            if not function:
                return None
            runs = []  # sent, and not yet received
        if not runs:
            return unserved(run_id, function)
        self._cache.inngest_ids[run_id] = runs[0].id
        return self._view(runs[0], run_id)

    async def _find_child(self, run_id: str) -> RunView | None:
        """A child: its event is Inngest's own, but its data names the run."""
        async for found in self.api.runs(f"event.data._durably.run == {json.dumps(run_id)}"):
            self._cache.inngest_ids[run_id] = found.id
            return self._view(await self.api.run(found.id), run_id)
        return None

    async def newest(self) -> AsyncIterator[RunView]:
        """All runs, newest first, by Inngest's ids."""
        async for info in self.api.runs():
            yield self._view(info, "")

    async def told(self, view: RunView) -> RunView:
        """A run by Inngest's id as one by ours, with what else its event says of it."""
        event, origin = await self._event(view.id)
        run_id = origin.run or view.id
        self._cache.inngest_ids[run_id] = view.id
        return replace(
            view,
            id=run_id,
            parent=origin.parent,
            root=origin.ancestry[0] if origin.parent else None,
            session_key=session_key_of(event),
            tags=origin.tags,
        )

    async def start_of(self, run_id: str) -> Event | None:
        """What started a run that was found, or ``None`` while Inngest has its event and not yet the run."""
        inngest_id = self._inngest_id(run_id)
        return None if inngest_id is None else (await self._event(inngest_id))[0]

    async def _event(self, inngest_id: str) -> tuple[Event, Origin]:
        return read_event(await self.api.event(inngest_id))

    async def cancel(self, run_id: str) -> bool:
        """End a run; ``False`` if Inngest does not have it yet."""
        inngest_id = self._inngest_id(run_id)
        if inngest_id is not None:
            await self.api.cancel(inngest_id)
        return inngest_id is not None

    def _view(self, info: RunInfo, run_id: str) -> RunView:
        return RunView(
            id=run_id or info.id,
            function=self._apps.function_id(info.function),
            status=info.status,
            output=None if info.output is None else decode_result(json.loads(info.output)),
            error=error_data(info.error) if info.status is RunStatus.FAILED else None,
            created_at=info.queued_at,
            ended_at=info.ended_at,
        )

    # -- histories

    async def history(self, view: RunView, redactor: Redactor) -> History:
        """The records of a run, read from what its steps gave."""
        inngest_id = self._cache.inngest_ids.get(view.id, view.id)
        event, _ = await self._event(inngest_id)
        own = StepRecord(view.id, 0, "", "run", "started", name=view.function, at=view.created_at)
        records = [replace(own, output=redactor.text(event.model_dump_json()))]
        for output in await self._outputs(inngest_id, view.status):
            records += [replace(each, at=each.at or output.ended) for each in decode_patches(output.data, view.id, 0)]
            record = decode_record(output.data, view.id, 0)
            if record is not None:
                took = round(output.ended - output.started, 3)
                records.append(record if record.at else replace(record, at=output.ended, took=took))
        status = _END.get(view.status)
        # A run that lost a planned step has its last record among its steps.
        if status is not None and (records[-1].kind != "run" or records[-1].status != "failed"):
            records.append(replace(own, status=status, output=view.output, error=view.error, at=view.ended_at))
        return History(replace(record, seq=seq) for seq, record in enumerate(records))

    async def _outputs(self, inngest_id: str, status: RunStatus) -> list[SpanOutput]:
        """What the steps gave; the server needs some seconds after the end to have all of it."""
        until = time.monotonic() + _TRACE_PATIENCE
        before = -1
        while True:
            expected = self._cache.settled(inngest_id)
            complete, outputs = await self.api.outputs(inngest_id, expected)
            # Where another process has seen the run end, nobody here knows which steps must be there.
            sure = bool(expected) or len(outputs) == before
            if not status.final or (complete and sure):
                return outputs
            if time.monotonic() > until:
                logger.warning("Inngest's trace of run %s is not complete: its history may lack a step", inngest_id)
                return outputs
            before = len(outputs)
            await asyncio.sleep(0.5 if complete else 0.05)
