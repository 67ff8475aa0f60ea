"""The backend: functions served to Inngest, runs started and looked at through its API."""

from __future__ import annotations

import asyncio
import json
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
from durably.backends.inngest.run_list import RunLister
from durably.backends.inngest.sdk import ServerClient
from durably.backends.inngest.server.graphql import GraphQLApi
from durably.backends.inngest.server.rest import RestApi
from durably.backends.inngest.server.runs import ServerRuns
from durably.backends.inngest.serving import App, StoppableApp, fastapi_app, serve_on_loopback
from durably.backends.inngest.suspended_code import SuspendedRuns
from durably.core import Backend, Capabilities, Event, Function, FunctionRef, Observer, RunNotFoundError
from durably.core.deltas import DeltaStore
from durably.core.errors import UnsupportedFeatureError
from durably.core.flow_support import FLOW_CONTROL, native, refused
from durably.core.history import History
from durably.core.ids import new_id
from durably.core.mistakes import check_client, check_event_loop
from durably.core.run_events import is_judged
from durably.core.run_filter import FoundRuns, RunFilter
from durably.core.run_input import check_same_start
from durably.core.run_view import RunStatus, RunView

__all__ = ["InngestBackend"]

MAX_PAYLOAD_BYTES = 4 * 2**20 - 64 * 2**10
"""Inngest ends a run, uncatchably, whose step gives more than 4 MiB; a record adds a little to the value."""


class InngestBackend(Backend):
    """Runs durable functions on Inngest.

    A function is an Inngest function, a run is one of its runs, and a step is one of its steps under the step's name.
    ``async with`` serves the functions on a loopback port and registers them, for scripts and tests; a deployed app
    mounts :attr:`app`, or calls ``serve`` of ``durably.backends.inngest.fastapi`` or of the module for its own
    framework.

    Args:
        client: The SDK's client. Its keys, environment and mode apply.
        functions: The functions to run. Without any, it is a client: it starts runs and sends events.
        apps: The app ids of functions that other apps serve, for ``step.invoke`` by reference.
        serve: Makes the ASGI app reachable while a block lasts, and returns its address. Default: a loopback port.
        now: The time, in seconds since 1970.
        poll: Seconds between two reads of a run that is waited for.
        grace: Seconds to wait for live requests when the backend is closed.
        hold: The longest time, in seconds, that the code of a run stays suspended between two requests, so that it need
            not be replayed. 0 replays it for each request.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return. Default: a little less than Inngest's own limit.
        observers: See :class:`~durably.core.Backend`.
        deltas: The store for pieces of streamed answers, such as ``SQLiteDeltas(path)``. Default: none.

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
            "waits in Run.stream()": "a wait leaves no record before it ends",
            "pieces of answers in Run.stream()": "nowhere to keep them: give deltas=, such as SQLiteDeltas(path)",
            "run_ended of a cancelled run": "Inngest cancels by itself, and no worker hears of it",
            "step.if_cancelled()": "Inngest cancels by itself, and no worker hears of it",
            "at_most_once under a request sent twice": "Inngest does not fence two copies of one request",
            "retention": "Inngest keeps ended runs as long as its plan says, and forgets them by itself",
            "sessions": "no store of sessions is part of Inngest: give the agent one, such as SQLiteSessions(path)",
            "steering": "runs cannot wait for each other there, so none sees which do: use on_message='cancel'",
            "workers": "Inngest does not tell which apps are connected: look at its dashboard, or at your web server",
            "limits of a worker": "a served app takes what Inngest sends: use concurrency= of the function",
            "a body begun by a process that was stopped while it held a request": "a request bears no lease, so that "
            "nothing tells it that Inngest has asked another process meanwhile",
            "a stop that cuts off a body, or an app that is down, told apart from a crash": "either way the request "
            "has no answer; give functions that must outlast an outage a higher crash_limit, 18 at most",
            "a start or an event that no app serves": "Inngest makes no run of it, and keeps it for nobody: let the "
            "app be registered before you start and send",
            "tags in run(id)": "they stand in the event of the run, which is not asked for; find it by runs(tags=)",
            "a key that is absent from an event": "Inngest takes it for null before this library sees the event; the "
            "run that it starts fails with MissingKeyError",
            "retry": "Inngest ends a failed run for good, and runs it again only from its pages; start a new run",
            "fork": "Inngest does not take what steps gave from another run",
            "on_code_change": "Inngest gives a run up that is not answered; pin its version, or let old runs end first",
            "patched() before a wait or a call under way": "of these, a run keeps nothing before they end, so that it "
            "counts as not being past the place; let them end first",
            "runs(), children by our ids and skipped runs in production": "its REST API does not show them",
            "status='waiting' and 'retrying' in runs()": "Inngest does not tell what a live run waits for",
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
        check_client("InngestBackend", client, inngest.Inngest, "inngest.Inngest(app_id='shop')")
        self.client = client
        self.suspended = SuspendedRuns(hold)
        self._now = now
        self._serve = serve
        self._poll = poll
        self.drain_timeout = grace
        self._crash: BaseException | None = None
        self._stack: AsyncExitStack | None = None
        server = ServerClient(client)
        self._apps = Apps(client.app_id, apps or {})
        self._events = EventSender(server, self.environment)
        self._cache = RunCache()
        api = RestApi(server) if server.production else GraphQLApi(server)
        self._runs = ServerRuns(api, self._apps, self._cache)
        self._lister = RunLister(self._runs, self.functions)
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
        check_event_loop()
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
            await self.app.stop(self.drain_timeout)
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

    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        return await self._lister.page(where, after, before, limit)

    async def tally_runs(self, where: RunFilter) -> dict[RunStatus, int]:
        return await self._lister.tally(where)

    async def start_run(
        self, function: FunctionRef[Any, Any], data: str, run_id: str | None, tags: Sequence[str] = ()
    ) -> RunView:
        self._check_alive()
        if run_id is not None and (known := await self._runs.find(run_id)) is not None:
            asked = json.loads(self.redactor.text(data))
            event = await self._runs.start_of(run_id)
            check_same_start(function, run_id, known.function, asked if event is None else event.data, asked)
            return known
        run_id = run_id or new_id()
        name = start_event(self._apps.of(function.id), function.id)
        self._cache.starts[run_id] = (
            await self._events.start(name, run_id, data, judged=is_judged(function), tags=tags),
            function.id,
        )
        now = self._now()
        return RunView(id=run_id, function=function.id, status=RunStatus.RUNNING, created_at=now, tags=tuple(tags))

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
