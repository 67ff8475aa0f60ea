"""The backend: functions served to Inngest, runs started and looked at through its API."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self

import httpx
import inngest
from pydantic import SecretStr

from durably.backends.inngest.events import Origin, seed, start_name, to_wire
from durably.backends.inngest.functions import ABANDONED, make_function
from durably.backends.inngest.sdk import Wire
from durably.backends.inngest.server.graphql import Api
from durably.backends.inngest.server.rest import CloudApi
from durably.backends.inngest.server.runs import Recent, Runs
from durably.backends.inngest.serving import App, Guard, fastapi_app, serve_on_loopback
from durably.backends.inngest.suspended_code import Held
from durably.core import Backend, Capabilities, DurablyError, Event, Function, FunctionRef, Run, RunNotFoundError
from durably.core.backend import RunStatus, RunView
from durably.core.errors import PayloadTooLargeError
from durably.core.functions import FLOW_CONTROL
from durably.core.history import History, StepRecord
from durably.core.ids import derive_id, new_id

__all__ = ["InngestBackend"]

MAX_PAYLOAD_BYTES = 4 * 2**20 - 64 * 2**10
"""Inngest ends a run, uncatchably, whose step gives more than 4 MiB; a record adds a little to the value."""


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
            "runs(), children by our ids and skipped runs in production": "its REST API does not show them",
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
        self._serve = serve
        self._poll = poll
        self._grace = grace
        self._wire = Wire(client)
        api = CloudApi(self._wire) if self._wire.production else Api(self._wire)
        self._runs = Runs(api, client.app_id, dict(apps or {}))
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
        # The SDK answers 200 with the server's refusal in it.
        if answer.status_code != 200 or not answer.json().get("ok"):
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

    def met(self, run_id: str, theirs: str, stack: Sequence[str] = ()) -> None:
        """Remember Inngest's id of a run, and which steps it has settled."""
        self._runs.met(run_id, theirs, stack)

    def app_of(self, function_id: str) -> str:
        """The app that serves a function."""
        return self._runs.app_of(function_id)

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
        found = [
            view
            for view in await self._runs.newest(limit if name is None and status is None else 400)
            if view.function in self.functions and name in (None, view.function) and status in (None, view.status)
        ]
        return [Run(self, self._find(view.function), await self._runs.named(view)) for view in found[:limit]]

    async def _start(self, function: FunctionRef[Any, Any], data: str, run_id: str | None) -> RunView:
        self._alive()
        if run_id is not None and (known := await self._runs.look(run_id)) is not None:
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
        (ulid,) = await self._wire.send([event], seed(run_id))
        self._runs.started(run_id, ulid, function.id)
        return RunView(id=run_id, function=function.id, status=RunStatus.RUNNING, created_at=self.now())

    async def _view(self, run_id: str) -> RunView:
        self._alive()
        view = await self._runs.look(run_id)
        if view is None:
            raise RunNotFoundError(run_id)
        return view

    async def _wait(self, run_id: str) -> RunView:
        while True:
            view = await self._view(run_id)
            if view.status.final:
                return view
            await asyncio.sleep(self._poll)

    async def _cancel(self, run_id: str) -> None:
        while not (await self._view(run_id)).status.final and not await self._runs.cancel(run_id):  # noqa: ASYNC110
            await asyncio.sleep(self._poll)  # the event is there, its run not yet

    async def _history(self, run_id: str) -> History:
        return await self._runs.history(await self._view(run_id), self.redactor)

    def _alive(self) -> None:
        if self._crash is not None:
            raise self._crash
