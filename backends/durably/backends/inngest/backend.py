"""The backend: functions served to Inngest, runs started and looked at through its API."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import replace
from typing import Any, Self

import httpx
import inngest
from pydantic import SecretStr

from durably.backends.inngest.api import Api, Output, Seen
from durably.backends.inngest.events import Origin, from_wire, seed, start_name, start_ulid, to_wire
from durably.backends.inngest.functions import ABANDONED, make_function
from durably.backends.inngest.held import Held
from durably.backends.inngest.memos import read_memo
from durably.backends.inngest.outcome import error_data
from durably.backends.inngest.sdk import Wire
from durably.backends.inngest.serving import App, Guard, fastapi_app, serve_on_loopback
from durably.core import (
    Backend,
    Capabilities,
    DurablyError,
    Event,
    Function,
    FunctionRef,
    History,
    PayloadTooLargeError,
    Run,
    RunNotFoundError,
    StepRecord,
)
from durably.core.backend import RunStatus, RunView
from durably.core.functions import FLOW_CONTROL
from durably.core.ids import derive_id, new_id

__all__ = ["InngestBackend"]

MAX_PAYLOAD_BYTES = 4 * 2**20 - 64 * 2**10
"""Inngest ends a run, uncatchably, whose step gives more than 4 MiB; a record adds a little to the value."""

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TRACE_PATIENCE = 5.0


class Recent(dict[str, Any]):
    """A dict that forgets its oldest entries, for what can be found out again."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > self._limit:
            del self[next(iter(self))]


class InngestBackend(Backend):
    """Runs durable functions on Inngest.

    A function is an Inngest function, a run one of its runs, a step one of its steps under the step's name. ``async
    with`` serves the functions on a loopback port and registers them, for scripts and tests; a deployed app mounts
    :attr:`app` or calls one of the functions of ``durably.backends.inngest.frameworks``.

    Args:
        client: The SDK's client. Its keys, environment and mode are kept.
        functions: What this process runs. Without any, it only starts runs and sends events.
        apps: The app ids of functions that other apps serve, for ``step.invoke`` by reference.
        serve: Makes the ASGI app reachable while a block lasts and gives its address; left out, a loopback port.
        now: The time, in seconds since 1970.
        poll: Seconds between two looks at a run that is waited for.
        grace: Seconds that requests under way are given when the backend is closed.
        hold: Seconds that the code of a run is held between two requests at most, so that it need not be replayed;
            0: it is replayed for each.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return; left out, a little less than Inngest's own limit.
    """

    name = "inngest"
    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        replay=False,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        gaps={
            "at_most_once under a request sent twice": "Inngest does not fence two copies of one request",
            "result, cancel, runs and history on Inngest Cloud": "its GraphQL is not open to signing keys",
        },
    )
    flow_control = frozenset(FLOW_CONTROL)

    def __init__(
        self,
        client: inngest.Inngest,
        functions: Sequence[Function[Any, Any]] = (),
        *,
        apps: Mapping[str, str] | None = None,
        serve: Callable[[App], AbstractAsyncContextManager[str]] = serve_on_loopback,
        now: Callable[[], float] = time.time,
        poll: float = 0.1,
        grace: float = 10.0,
        hold: float = 60.0,
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
    ) -> None:
        super().__init__(functions, resources=resources, secrets=secrets)
        self.client = client
        self.now = now
        self.held = Held(hold)
        self.known: dict[str, tuple[list[str], list[StepRecord]]] = Recent(100)
        self.max_payload_bytes = max_payload_bytes or self.capabilities.max_payload_bytes
        self.inngest_functions = [make_function(client, each, self) for each in self.functions.values()]
        self._apps = dict(apps or {})
        self._serve = serve
        self._poll = poll
        self._grace = grace
        self._wire = Wire(client)
        self._api = Api(self._wire)
        self._theirs: dict[str, str] = Recent(10_000)
        self._started: dict[str, str] = Recent(10_000)
        self._crash: BaseException | None = None
        self._stack: AsyncExitStack | None = None
        self.app = Guard(fastapi_app(client, self.inngest_functions))

    # -- the worker

    async def __aenter__(self) -> Self:
        """Serve the functions and register them; unfinished runs go on by themselves."""
        if self._stack is not None:
            raise RuntimeError("this inngest backend is already running; use one 'async with' for each backend")
        self._stack = AsyncExitStack()
        if self.functions:
            address = await self._stack.enter_async_context(self._serve(self.app))
            await self.register(address)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Let requests under way end, then stop serving."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await self.app.drain(self._grace)
            self.held.clear()
            await stack.aclose()

    async def register(self, address: str) -> None:
        """Tell Inngest where the functions are served.

        Args:
            address: The origin, such as ``"http://127.0.0.1:8000"``.
        """
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=address) as http:
            answer = await http.put("/api/inngest")
        if answer.status_code != 200:
            raise ConnectionError(
                f"Inngest at {self.client.api_origin} did not take the functions: {answer.status_code} {answer.text}"
            )

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is answered. For the harness; whoever waits gets the signal."""
        if self._crash is None:
            self._crash = signal
            self.app.cut_off()
            self.held.clear()

    # -- for the code of runs

    def met(self, run_id: str, theirs: str) -> None:
        """Remember Inngest's id of a run."""
        self._theirs[run_id] = theirs

    def app_of(self, function_id: str) -> str:
        """The app that serves a function."""
        return self._apps.get(function_id, self.client.app_id)

    async def abandon(self, child: str) -> None:
        """End a run that nobody waits for any more."""
        event = inngest.Event(name=ABANDONED, data={"run": child}, id=derive_id("abandon", child, ""))
        await self._wire.send([event])

    # -- the port

    async def send(self, *events: Event) -> list[str]:
        named = [event if event.id else event.model_copy(update={"id": new_id()}) for event in events]
        wired = [
            inngest.Event(
                name=event.name,
                data=to_wire(json.loads(self._checked(event))["data"]),
                id=event.id or "",
                ts=math.ceil((event.ts or 0) * 1000),  # whole milliseconds, and not before its time
            )
            for event in named
        ]
        await self._wire.send(wired)
        return [event.id or "" for event in named]

    def _checked(self, event: Event) -> str:
        text = self.redactor.text(event.model_dump_json())
        if len(text) > self.max_payload_bytes:
            raise PayloadTooLargeError(step="", size=len(text), limit=self.max_payload_bytes)
        return text

    async def runs(
        self, *, function: FunctionRef[Any, Any] | str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[Run[Any]]:
        name = function.id if isinstance(function, FunctionRef) else function
        found: list[Run[Any]] = []
        for seen in await self._api.runs(limit if name is None and status is None else 400):
            view = self._view_of(seen, "")
            if view.function in self.functions and name in (None, view.function) and status in (None, view.status):
                _, origin = from_wire(await self._api.event(seen.id))
                run_id = origin.run or seen.id
                self.met(run_id, seen.id)
                found.append(Run(self, self._find(view.function), replace(view, id=run_id, parent=origin.parent)))
        return found[:limit]

    async def _start(self, function: FunctionRef[Any, Any], data: str, run_id: str | None) -> RunView:
        self._alive()
        if run_id is not None and (known := await self._look(run_id)) is not None:
            if known.function != function.id:
                raise DurablyError(f"run {run_id!r} belongs to function {known.function!r}, not {function.id!r}")
            return known
        run_id = run_id or new_id()
        text = self.redactor.text(data)
        if len(text) > self.max_payload_bytes:
            raise PayloadTooLargeError(step="", size=len(text), limit=self.max_payload_bytes)
        event = inngest.Event(
            name=start_name(self.app_of(function.id), function.id),
            data=to_wire(json.loads(text), Origin(run_id, (run_id,))),
            id=derive_id("start", run_id, ""),
        )
        (self._started[run_id],) = await self._wire.send([event], seed(run_id))
        return RunView(id=run_id, function=function.id, status=RunStatus.RUNNING, created_at=self.now())

    async def _view(self, run_id: str) -> RunView:
        view = await self._look(run_id)
        if view is None:
            raise RunNotFoundError(run_id)
        return view

    async def _look(self, run_id: str) -> RunView | None:
        """A run by our id or Inngest's, or ``None``."""
        theirs = self._theirs.get(run_id) or (run_id if _ULID.fullmatch(run_id) else None)
        if theirs is not None:
            with suppress(LookupError):  # an event names its runs a little before they can be looked at
                return self._view_of(await self._api.run(theirs), run_id)
        return await self._look_by_event(run_id) or await self._look_by_origin(run_id)

    async def _look_by_event(self, run_id: str) -> RunView | None:
        try:
            name, runs = await self._api.runs_of_event(self._started.get(run_id) or start_ulid(run_id))
        except LookupError:
            if run_id not in self._started:
                return None
            return RunView(id=run_id, function="", status=RunStatus.RUNNING)  # sent, and not yet received
        if runs:
            self.met(run_id, runs[0].id)
            return self._view_of(runs[0], run_id)
        return RunView(id=run_id, function=self._own_id(name.removeprefix("durably/start.")), status=RunStatus.RUNNING)

    async def _look_by_origin(self, run_id: str) -> RunView | None:
        """A child: its event is Inngest's own, but its data names the run."""
        found = await self._api.runs(1, f"event.data._durably.run == {json.dumps(run_id)}")
        if not found:
            return None
        self.met(run_id, found[0].id)
        return self._view_of(await self._api.run(found[0].id), run_id)

    async def _wait(self, run_id: str) -> RunView:
        while True:
            self._alive()
            view = await self._view(run_id)
            if view.status.final:
                return view
            await asyncio.sleep(self._poll)

    async def _cancel(self, run_id: str) -> None:
        view = await self._view(run_id)
        while not view.status.final and run_id not in self._theirs:
            await asyncio.sleep(self._poll)  # the event is there, its run not yet
            view = await self._view(run_id)
        if not view.status.final:
            await self._api.cancel(self._theirs.get(run_id, run_id))

    def _alive(self) -> None:
        if self._crash is not None:
            raise self._crash

    def _view_of(self, seen: Seen, run_id: str) -> RunView:
        return RunView(
            id=run_id or seen.id,
            function=self._own_id(seen.function),
            status=seen.status,
            output=seen.output,
            error=error_data(seen.error) if seen.status is RunStatus.FAILED else None,
            created_at=seen.queued_at,
            ended_at=seen.ended_at,
        )

    def _own_id(self, full: str) -> str:
        """The id of a function without its app's."""
        for function_id, app_id in self._apps.items():
            if full == f"{app_id}-{function_id}":
                return function_id
        return full.removeprefix(f"{self.client.app_id}-")

    # -- histories

    async def _history(self, run_id: str) -> History:
        view = await self._view(run_id)
        theirs = self._theirs.get(run_id, run_id)
        event, _ = from_wire(await self._api.event(theirs))
        records = [
            StepRecord(
                run_id,
                0,
                "",
                "run",
                "started",
                name=view.function,
                output=self.redactor.text(event.model_dump_json()),
                at=view.created_at,
            )
        ]
        for output in await self._outputs(theirs, view.status):
            record = read_memo(output.data, run_id, 0)
            if record is not None:
                took = round(output.ended - output.started, 3)
                records.append(record if record.at else replace(record, at=output.ended, took=took))
        last = self._last(view)
        if last is not None and not (records[-1].kind == "run" and records[-1].status == "failed"):
            records.append(last)
        return History(replace(record, seq=seq) for seq, record in enumerate(records))

    async def _outputs(self, theirs: str, status: RunStatus) -> list[Output]:
        """What the steps gave; the server needs some seconds after the end to have all of it."""
        until = time.monotonic() + _TRACE_PATIENCE
        while True:
            complete, outputs = await self._api.outputs(theirs)
            if complete or not status.final or time.monotonic() > until:
                return outputs
            await asyncio.sleep(self._poll)

    def _last(self, view: RunView) -> StepRecord | None:
        status: Any = view.status.value
        if status not in ("completed", "failed", "cancelled"):
            return None
        return StepRecord(
            view.id, 0, "", "run", status, name=view.function, output=view.output, error=view.error, at=view.ended_at
        )
