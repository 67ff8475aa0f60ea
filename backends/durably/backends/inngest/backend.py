"""The backend: functions served to Inngest, runs started and looked at through its API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self

import httpx
import inngest
from pydantic import SecretStr

from durably.backends.inngest.apps import Apps, start_event
from durably.backends.inngest.driver import Driver
from durably.backends.inngest.events import EventSender
from durably.backends.inngest.functions import make_function
from durably.backends.inngest.host import InngestHost
from durably.backends.inngest.run_cache import RunCache
from durably.backends.inngest.sdk import ServerClient
from durably.backends.inngest.server.graphql import GraphQLApi
from durably.backends.inngest.server.rest import RestApi
from durably.backends.inngest.server.runs import ServerRuns
from durably.backends.inngest.serving import App, StoppableApp, fastapi_app, serve_on_loopback
from durably.backends.inngest.suspended_code import SuspendedRuns
from durably.core import Backend, Capabilities, Event, Function, FunctionRef, Observer, Run, RunNotFoundError
from durably.core.backend import RunStatus, RunView, check_function
from durably.core.deltas import DeltaStore
from durably.core.errors import UnsupportedFeatureError
from durably.core.flow_support import FLOW_CONTROL, native, refused
from durably.core.history import History
from durably.core.ids import new_id
from durably.core.run_events import is_judged

__all__ = ["InngestBackend"]

MAX_PAYLOAD_BYTES = 4 * 2**20 - 64 * 2**10
"""Inngest ends a run, uncatchably, whose step gives more than 4 MiB; a record adds a little to the value."""

FILTERED_RUNS = 400
"""How many of the newest runs are looked through for those of one function or status: Inngest cannot filter by ours."""


class InngestBackend(Backend):
    """Runs durable functions on Inngest.

    A function is an Inngest function, a run one of its runs, a step one of its steps under the step's name. ``async
    with`` serves the functions on a loopback port and registers them, for scripts and tests; a deployed app mounts
    :attr:`app`, or calls ``serve`` of ``durably.backends.inngest.fastapi`` or of the module for its own framework.

    Args:
        client: The SDK's client. Its keys, environment and mode are kept.
        functions: What this process runs. Without any, it only starts runs and sends events.
        apps: The app ids of functions that other apps serve, for ``step.invoke`` by reference.
        serve: Makes the ASGI app reachable while a block lasts and gives its address; left out, a loopback port.
        now: The time, in seconds since 1970.
        poll: Seconds between two looks at a run that is waited for.
        grace: Seconds that requests under way are given when the backend is closed.
        hold: Seconds that the code of a run stays suspended between two requests at most, so that it need not be
            replayed; 0: it is replayed for each.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return; left out, a little less than Inngest's own limit.
        observers: See :class:`~durably.core.Backend`.
        deltas: Where the pieces of streamed answers are kept, such as ``SQLiteDeltas(path)``; left out, nowhere.

    Attributes:
        client: The SDK's client.
        app: An ASGI app that serves the functions.
        inngest_functions: The functions as the SDK's.
        suspended: The runs whose code is suspended between two requests.
    """

    name = "inngest"
    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        replay=False,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        flow_control={
            **dict.fromkeys(FLOW_CONTROL, native()),
            "cron": native('its own rule for nights an hour is skipped or repeats; only missed="once"'),
            "concurrency": native("it counts calls, which are the steps of a run and the code between them"),
            "singleton_queue": refused("Inngest's concurrency counts steps, and its singleton cannot wait"),
        },
        gaps={
            "at_most_once under a request sent twice": "Inngest does not fence two copies of one request",
            "a body begun by a process that was stopped while it held a request": "a request bears no lease, so that "
            "nothing tells it that Inngest has asked another process meanwhile",
            "a stop that cuts off a body, told apart from a crash": "either way the request has no answer",
            "a key that is absent from an event": "Inngest takes it for null before this library sees the event; the "
            "run that it starts fails with MissingKeyError",
            "retry": "Inngest ends a failed run for good, and runs it again only from its pages; start a new run",
            "fork": "Inngest does not take what steps gave from another run",
            "on_code_change": "Inngest gives a run up that is not answered; pin its version, or let old runs end first",
            "patched": "Inngest has no place for a mark beside a step; let old runs end first",
            "runs(), children by our ids and skipped runs in production": "its REST API does not show them",
        },
    )

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
        observers: Iterable[Observer] = (),
        deltas: DeltaStore | None = None,
    ) -> None:
        super().__init__(
            functions,
            resources=resources,
            secrets=secrets,
            max_payload_bytes=max_payload_bytes,
            observers=observers,
            deltas=deltas,
        )
        self.environment.observers.now = now
        self.client = client
        self.suspended = SuspendedRuns(hold)
        self._now = now
        self._serve = serve
        self._poll = poll
        self._grace = grace
        self._crash: BaseException | None = None
        self._stack: AsyncExitStack | None = None
        server = ServerClient(client)
        self._apps = Apps(client.app_id, apps or {})
        self._events = EventSender(server, self.environment)
        self._cache = RunCache()
        api = RestApi(server) if server.production else GraphQLApi(server)
        self._runs = ServerRuns(api, self._apps, self._cache)
        host = InngestHost(
            environment=self.environment,
            now=now,
            apps=self._apps,
            events=self._events,
            cache=self._cache,
            suspended=self.suspended,
            crash=self.crash,
        )
        driver = Driver(host)
        self.inngest_functions = [make_function(client, each, driver) for each in self.functions.values()]
        self.app = StoppableApp(fastapi_app(client, self.inngest_functions))

    # -- the worker

    def check_rules(self, function: Function[Any, Any]) -> None:
        super().check_rules(function)
        if function.cron is not None and function.cron.missed != "once":
            raise UnsupportedFeatureError(
                backend=self.name,
                feature=f"missed={function.cron.missed!r} in cron= of function {function.id!r}",
                reason="Inngest says nothing of times that it missed; take it out",
            )

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
            await self.app.stop(self._grace)
            self.suspended.clear()
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
            self.suspended.clear()

    # -- the port

    def now(self) -> float:
        return self._now()

    async def send_events(self, events: Sequence[Event]) -> list[str]:
        return await self._events.send(events)

    async def runs(
        self, *, function: FunctionRef[Any, Any] | str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[Run[Any]]:
        name = function.id if isinstance(function, FunctionRef) else function
        found = [
            view
            for view in await self._runs.newest(limit if name is None and status is None else FILTERED_RUNS)
            if view.function in self.functions and name in (None, view.function) and status in (None, view.status)
        ]
        return [
            Run(self, self.find_function(view.function), await self._runs.with_own_id(view)) for view in found[:limit]
        ]

    async def start_run(self, function: FunctionRef[Any, Any], data: str, run_id: str | None) -> RunView:
        self._check_alive()
        if run_id is not None and (known := await self._runs.find(run_id)) is not None:
            check_function(run_id, known.function, function.id)
            return known
        run_id = run_id or new_id()
        name = start_event(self._apps.of(function.id), function.id)
        self._cache.starts[run_id] = (
            await self._events.start(name, run_id, data, judged=is_judged(function)),
            function.id,
        )
        return RunView(id=run_id, function=function.id, status=RunStatus.RUNNING, created_at=self._now())

    async def view(self, run_id: str) -> RunView:
        self._check_alive()
        view = await self._runs.find(run_id)
        if view is None:
            raise RunNotFoundError(run_id)
        return view

    async def wait(self, run_id: str) -> RunView:
        while True:
            view = await self.view(run_id)
            if view.status.final:
                return view
            await asyncio.sleep(self._poll)

    async def cancel(self, run_id: str) -> None:
        while not (await self.view(run_id)).status.final and not await self._runs.cancel(run_id):  # noqa: ASYNC110
            await asyncio.sleep(self._poll)  # the event is there, its run not yet

    async def history(self, run_id: str) -> History:
        while not self._runs.has_begun((view := await self.view(run_id)).id):  # noqa: ASYNC110
            await asyncio.sleep(self._poll)  # the event is there, its run not yet
        return await self._runs.history(view, self.redactor)

    def _check_alive(self) -> None:
        if self._crash is not None:
            raise self._crash
