"""Finding runs on Inngest by our ids, and what can be said of them: where they stand, how they went."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from durably.backends.inngest.events import START, Origin, from_wire, start_ulid
from durably.backends.inngest.outcome import error_data
from durably.backends.inngest.records import read_memo, read_result
from durably.backends.inngest.server.graphql import Api
from durably.backends.inngest.server.rest import CloudApi
from durably.backends.inngest.server.trace_views import Output, Seen
from durably.core.backend import RunStatus, RunView
from durably.core.history import History, StepRecord
from durably.core.secrets import Redactor

__all__ = ["Recent", "Runs"]

logger = logging.getLogger("durably")

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TRACE_PATIENCE = 5.0
"""Seconds that a trace is given to be complete, after the end of its run."""


class Recent(dict[str, Any]):
    """A dict that forgets its oldest entries, for what can be found out again."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > self._limit:
            del self[next(iter(self))]


class Runs:
    """The runs of an environment.

    Args:
        api: Who asks the server.
        app_id: The app whose functions are meant.
        apps: The app ids of functions of other apps.
    """

    def __init__(self, api: Api | CloudApi, app_id: str, apps: Mapping[str, str]) -> None:
        self.api = api
        self._app_id = app_id
        self._apps = apps
        self._theirs: dict[str, str] = Recent(10_000)
        self._events: dict[str, tuple[str, str]] = Recent(10_000)
        self._stacks: dict[str, Sequence[str]] = Recent(100)

    def met(self, run_id: str, theirs: str, stack: Sequence[str] = ()) -> None:
        """Remember Inngest's id of a run, and which steps it has settled."""
        self._theirs[run_id] = theirs
        if stack:
            self._stacks[theirs] = stack

    def started(self, run_id: str, event: str, function: str) -> None:
        """Remember the event that starts a run of a function."""
        self._events[run_id] = event, function

    def app_of(self, function_id: str) -> str:
        """The app that serves a function."""
        return self._apps.get(function_id, self._app_id)

    def _own_id(self, full: str) -> str:
        """The id of a function without its app's."""
        for function_id, app_id in self._apps.items():
            if full == f"{app_id}-{function_id}":
                return function_id
        return full.removeprefix(f"{self._app_id}-")

    # -- views

    async def look(self, run_id: str) -> RunView | None:
        """A run by our id or Inngest's, or ``None``."""
        theirs = self._theirs.get(run_id) or (run_id if _ULID.fullmatch(run_id) else None)
        if theirs is not None:
            with suppress(LookupError):  # an event names its runs a little before they can be looked at
                return self._view(await self.api.run(theirs), run_id)
        return await self._look_by_event(run_id) or await self._look_by_origin(run_id)

    async def _look_by_event(self, run_id: str) -> RunView | None:
        event, function = self._events.get(run_id) or (start_ulid(run_id), "")
        try:
            runs = await self.api.runs_of_event(event)
            if not runs and not function:
                function = self._own_id((await self.api.name_of_event(event)).removeprefix(START))
        except LookupError:
            if not function:
                return None
            runs = []  # sent, and not yet received
        if not runs:
            return RunView(id=run_id, function=function, status=RunStatus.RUNNING)
        self.met(run_id, runs[0].id)
        return self._view(runs[0], run_id)

    async def _look_by_origin(self, run_id: str) -> RunView | None:
        """A child: its event is Inngest's own, but its data names the run."""
        found = await self.api.runs(1, f"event.data._durably.run == {json.dumps(run_id)}")
        if not found:
            return None
        self.met(run_id, found[0].id)
        return self._view(await self.api.run(found[0].id), run_id)

    async def newest(self, first: int) -> list[RunView]:
        """The newest runs, newest first, by Inngest's ids."""
        return [self._view(seen, "") for seen in await self.api.runs(first)]

    async def named(self, view: RunView) -> RunView:
        """A run by Inngest's id as one by ours, which its event knows."""
        _, origin = await self._event(view.id)
        run_id = origin.run or view.id
        self.met(run_id, view.id)
        return replace(view, id=run_id, parent=origin.parent)

    async def _event(self, theirs: str) -> tuple[Any, Origin]:
        return from_wire(await self.api.event(theirs))

    async def cancel(self, run_id: str) -> bool:
        """End a run; ``False`` if Inngest does not have it yet."""
        theirs = self._theirs.get(run_id) or (run_id if _ULID.fullmatch(run_id) else None)
        if theirs is not None:
            await self.api.cancel(theirs)
        return theirs is not None

    def _view(self, seen: Seen, run_id: str) -> RunView:
        return RunView(
            id=run_id or seen.id,
            function=self._own_id(seen.function),
            status=seen.status,
            output=None if seen.output is None else read_result(json.loads(seen.output)),
            error=error_data(seen.error) if seen.status is RunStatus.FAILED else None,
            created_at=seen.queued_at,
            ended_at=seen.ended_at,
        )

    # -- histories

    async def history(self, view: RunView, redactor: Redactor) -> History:
        """The records of a run, read from what its steps gave."""
        theirs = self._theirs.get(view.id, view.id)
        event, _ = await self._event(theirs)
        own = StepRecord(view.id, 0, "", "run", "started", name=view.function, at=view.created_at)
        records = [replace(own, output=redactor.text(event.model_dump_json()))]
        for output in await self._outputs(theirs, view.status):
            record = read_memo(output.data, view.id, 0)
            if record is not None:
                took = round(output.ended - output.started, 3)
                records.append(record if record.at else replace(record, at=output.ended, took=took))
        status: Any = view.status.value
        if status in ("completed", "failed", "cancelled") and (records[-1].key or records[-1].status != "failed"):
            records.append(replace(own, status=status, output=view.output, error=view.error, at=view.ended_at))
        return History(replace(record, seq=seq) for seq, record in enumerate(records))

    async def _outputs(self, theirs: str, status: RunStatus) -> list[Output]:
        """What the steps gave; the server needs some seconds after the end to have all of it."""
        until = time.monotonic() + _TRACE_PATIENCE
        expected, before = self._stacks.get(theirs, ()), -1
        while True:
            complete, outputs = await self.api.outputs(theirs, expected)
            # Where another process has seen the run end, nobody here knows which steps must be there.
            sure = bool(expected) or len(outputs) == before
            if not status.final or (complete and sure):
                return outputs
            if time.monotonic() > until:
                logger.warning("Inngest's trace of run %s is not complete: its history may lack a step", theirs)
                return outputs
            before = len(outputs)
            await asyncio.sleep(0.5 if complete else 0.05)
