"""The backend: starting runs on a Temporal cluster, looking at them, and the worker that runs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import SecretStr
from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.cron_times import check_cron
from durably.backends.temporal.cron import CronClient
from durably.backends.temporal.events import EventSender
from durably.backends.temporal.flow import FLOW_RULES
from durably.backends.temporal.history.reader import read_records
from durably.backends.temporal.host import TemporalHost
from durably.backends.temporal.outcome import completed_status, failed_status, tries_again, view_of
from durably.backends.temporal.payloads import MAX_PAYLOAD_BYTES, check_size, payload, text_of
from durably.backends.temporal.pollers import live_pollers
from durably.backends.temporal.reach import asks_server
from durably.backends.temporal.registry import StepRegistry
from durably.backends.temporal.repair import RunRepair
from durably.backends.temporal.run_info import run_memo
from durably.backends.temporal.run_list import RunLister
from durably.backends.temporal.runs_in_line import LineReader
from durably.backends.temporal.singleton import SingletonClient, lock_id
from durably.backends.temporal.system import SystemActivities
from durably.backends.temporal.system_workflows import SystemWorkflows
from durably.backends.temporal.worker import Role, TemporalWorker, WorkerOptions, versioning_of
from durably.core import Backend, Capabilities, Event, Function, FunctionRef, Observer, RunNotFoundError
from durably.core.deltas import DeltaStore
from durably.core.durations import Duration, duration_seconds
from durably.core.engine import FORGOTTEN_ATTEMPTS
from durably.core.errors import RunNotFailedError
from durably.core.events import check_events
from durably.core.history import History
from durably.core.ids import new_id
from durably.core.mistakes import check_client, check_event_loop
from durably.core.run_events import outside_events, started_event
from durably.core.run_filter import FoundRuns, RunFilter
from durably.core.run_input import check_same_start
from durably.core.run_view import RunStatus, RunView
from durably.core.services import EngineServices, WaitingRun
from durably.core.standing import open_records, standing, waits_for_worker
from durably.core.stuck import Stuck
from durably.core.worker_view import WorkerView

__all__ = ["TemporalBackend"]

SHORTEST_TASK, LONGEST_TASK = timedelta(seconds=1), timedelta(seconds=120)
"""Temporal counts a longer time-out of a task as this one."""

CANCEL = 15.0
"""How many seconds ``cancel()`` waits for the run to stop. A closure that runs holds it up for up to 8."""


class TemporalBackend(Backend):
    """Runs durable functions on a Temporal cluster.

    A function is a workflow type, a run is a workflow execution with the run's id, and a step is an activity named
    after the step. ``async with`` starts a worker on the task queue; :func:`~durably.core.run_worker` does so for a
    whole process.

    Args:
        client: A connected client. Its data converter, interceptors and TLS settings apply.
        task_queue: Where the functions' workflows and activities go.
        functions: The functions to run. Without any, it is a client: it starts runs and sends events.
        hub_queue: The task queue of the workflows that forward events. Programs that share events need the same one.
            Default: the task queue.
        queues: The task queues of functions that other programs serve, for ``step.invoke`` by reference.
        role: ``"workflows"`` runs functions without step bodies, ``"activities"`` only step bodies.
        heartbeat: How long without a heartbeat until a worker counts as dead and its bodies run on another one.
        task_timeout: How long a worker has for one task of a run, in which it replays the run's history if it takes the
            run over; then another worker gets it. 1 to 120 seconds. Runs keep the one with which they were started.
        drain: How long a stopping worker waits for running bodies. The rest runs again on another worker.
        continue_after: How many events a history may have before the run continues in a fresh one.
        on_code_change: What happens to a run whose code no longer fits its history: ``"fail"`` ends it with
            ``NonDeterminismError``; ``"wait"`` leaves it, as Temporal does, until the old code is back.
        worker_name: The worker's identity on Temporal. Default: the client's, which is its process and host.
        max_runs: How many runs it executes at once, without waiting runs. Default: as Temporal's worker.
        max_steps: How many bodies it runs at once. Default: as Temporal's worker.
        worker_options: Options of ``temporalio.worker.Worker``: versioning, tuners, cache sizes.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return. Default: a little less than Temporal's own limit.
        observers: See :class:`~durably.core.Backend`. Events of workflows are reported with a short delay.
        deltas: The store for pieces of streamed answers, such as ``SQLiteDeltas(path)``. Default: none.
    """

    name = "temporal"
    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        flow_control=FLOW_RULES,
        gaps={
            "waits in Run.stream()": "a wait leaves no record before it ends",
            "pieces of answers in Run.stream()": "nowhere to keep them: give deltas=, such as SQLiteDeltas(path)",
            "at_most_once closures": "Temporal writes down that a closure ran only after it ran; name the body instead",
            "closures in a full cache": "Temporal's worker may put a run out of its cache while a closure of it runs, "
            "which then runs again, as after a crash; name the body instead",
            "events before the first worker": "an event goes to the functions that workers have registered by then, "
            "and is kept for no other: let a worker of the task queue run once before you send",
            "singleton= of a function that the starting program does not have": "a start goes by the functions that "
            "its backend was given: give it the function, and no FunctionRef",
            FORGOTTEN_ATTEMPTS: "Temporal keeps the last one of an activity; observers and the log have each",
            "sessions": "no store of sessions is part of Temporal: give the agent one, such as SQLiteSessions(path)",
            "evict": "Temporal's own is max_cached_workflows=0 in worker_options",
            "retention": "Temporal keeps ended runs as long as its namespace says: set it there, "
            "with 'temporal operator namespace update --retention 30d'",
        },
    )

    def __init__(
        self,
        client: Client,
        *,
        task_queue: str,
        functions: Sequence[Function[Any, Any]] = (),
        hub_queue: str | None = None,
        queues: Mapping[str, str] | None = None,
        role: Role = "all",
        heartbeat: Duration = timedelta(seconds=30),
        task_timeout: Duration = timedelta(seconds=10),
        drain: Duration = timedelta(seconds=10),
        continue_after: int = 20_000,
        on_code_change: Literal["fail", "wait"] = "fail",
        worker_name: str = "",
        max_runs: int | None = None,
        max_steps: int | None = None,
        worker_options: Mapping[str, Any] | None = None,
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
            services=EngineServices(waiting=self._waiting),
        )
        check_client("TemporalBackend", client, Client, "await Client.connect('localhost:7233')")
        self.client = client
        self.task_queue = task_queue
        heartbeat = timedelta(seconds=duration_seconds(heartbeat, "heartbeat of TemporalBackend"))
        self.drain_timeout = duration_seconds(drain, "drain of TemporalBackend")
        given = {**({"identity": worker_name} if worker_name else {}), **(worker_options or {})}
        hub_queue = hub_queue or task_queue
        task_timeout = timedelta(seconds=duration_seconds(task_timeout, "task_timeout of TemporalBackend"))
        if not SHORTEST_TASK <= task_timeout <= LONGEST_TASK:
            raise ValueError(f"task_timeout of TemporalBackend must be 1 to 120 seconds, not {task_timeout}")
        self._events = EventSender(client, hub_queue, task_timeout)
        self._locks = SingletonClient(SystemWorkflows(client, hub_queue, task_timeout))
        self._lines = LineReader(client, hub_queue, self.functions)
        self._crons = CronClient(SystemWorkflows(client, task_queue, task_timeout))
        system = SystemActivities(self._events, self._locks, client)
        self._host = TemporalHost(
            environment=self.environment,
            functions=self.functions,
            client=client,
            task_queue=task_queue,
            hub_queue=hub_queue,
            queues=dict(queues or {}),
            registry=StepRegistry(self.functions, self.resources, system.by_name()),
            heartbeat=heartbeat,
            continue_after=continue_after,
            versioning=versioning_of(given),
            task_timeout=task_timeout,
        )
        self._repair = RunRepair(client, self._host)
        options = WorkerOptions(
            role=role,
            max_runs=max_runs,
            max_steps=max_steps,
            fail_on_code_change=on_code_change == "fail",
            options=given,
        )
        self._worker = TemporalWorker(self._host, self._events, self._locks, self._crons, options)
        self._lister = RunLister(client, task_queue, self._look)

    # -- the worker

    def check_rules(self, function: Function[Any, Any]) -> None:
        super().check_rules(function)
        if function.cron is not None:
            check_cron(function.cron, function.id)

    @asks_server
    async def __aenter__(self) -> Self:
        """Start a worker; unfinished runs go on by themselves."""
        check_event_loop()
        if self._worker.started:
            raise RuntimeError("this temporal backend is already running; use one 'async with' for each backend")
        if self.functions:
            self._worker.start(self.drain_timeout)
            await self._subscribe()
            await self._crons.keep(self.functions)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the worker. Its runs go on where another one is up, or when this one is again."""
        await self._worker.stop()

    async def work_until(self, stop: asyncio.Event) -> None:
        await self._worker.wait_until(stop)

    @asks_server
    async def live_workers(self) -> list[WorkerView]:
        return await live_pollers(self.client, self.task_queue)

    async def _subscribe(self) -> None:
        # It stays known: an event that comes while no worker is up starts its functions too.
        for function in self.functions.values():
            for name in function.triggers:
                await self._events.add_triggers(name, {function.id: self.task_queue})
        await self._events.retire_earlier_hubs()

    @asks_server
    async def _waiting(self, run_id: str, known: Collection[str]) -> list[WaitingRun]:
        return await self._lines.behind(run_id, known)

    # -- the port

    @asks_server
    async def send(self, *events: Event) -> list[str]:
        check_events(events, self.redact)
        named = outside_events(events, self.environment.observers.traceparent())
        return await self._send(named, own={event.id for event in events})

    @asks_server
    async def send_events(self, events: Sequence[Event]) -> list[str]:
        return await self._send(events, own={event.id for event in events})

    async def _send(self, events: Sequence[Event], own: Collection[str | None]) -> list[str]:
        texts = [self.redactor.text(event.model_dump_json()) for event in events]
        for text in texts:
            check_size(text, step="", limit=self.environment.max_payload_bytes)
        return await self._events.send([Event.model_validate_json(text) for text in texts], own=own, once=True)

    @asks_server
    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        self._worker.check_alive()
        return await self._lister.page(where, after, before, limit)

    @asks_server
    async def tally_runs(self, where: RunFilter) -> dict[RunStatus, int]:
        self._worker.check_alive()
        return await self._lister.tally(where)

    @asks_server
    async def start_run(
        self, function: FunctionRef[Any, Any], data: str, run_id: str | None, tags: Sequence[str] = ()
    ) -> RunView:
        self._worker.check_alive()
        run_id = run_id or new_id()
        place = self.environment.observers.traceparent()
        event = self.redactor.text(started_event(function, run_id, data, place))
        check_size(event, step="", limit=self.environment.max_payload_bytes)
        try:
            await self.client.start_workflow(
                function.id,
                payload(event),
                id=run_id,
                memo=run_memo(Event.model_validate_json(event), tags=tags),
                task_queue=self._host.queues.get(function.id, self.task_queue),
                task_timeout=self._host.task_timeout,
                # An id that was used stands for its run, though that may have ended: Temporal would run it once more.
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            view = await self.view(run_id)
            first = (await read_records(self.client, run_id))[0]
            recorded, asked = json.loads(first.output or "{}"), json.loads(event)
            check_same_start(function, run_id, view.function, recorded.get("data"), asked["data"])
            return view
        view = RunView(id=run_id, function=function.id, status=RunStatus.RUNNING, tags=tuple(tags))
        return await self._claim(function, event, view)

    async def _claim(self, function: FunctionRef[Any, Any], event: str, view: RunView) -> RunView:
        """Ask for a new run's singleton lock in the order of the starts; the run asks too, in case we die here."""
        if isinstance(function, Function) and function.singleton is not None:
            lock = lock_id(self._host.hub_queue, function, Event.model_validate_json(event))
            view = await self._describe(view.id)
            await self._locks.claim(lock or "", view.id, function.singleton.mode, view.created_at)
        return view

    @asks_server
    async def view(self, run_id: str) -> RunView:
        _, view = await self._find(run_id)
        if view.status.final:
            status, output, error = await self._outcome(run_id)
            return replace(view, status=status, output=output, error=error)
        return await self._look(view)

    async def _look(self, view: RunView) -> RunView:
        """Where a live run stands, by its records and by whether a worker has taken up what is to be done."""
        if view.status is RunStatus.WAITING:  # for its turn: it has not begun
            return view
        held = standing(open_records(await read_records(self.client, view.id)))
        found = await self.client.get_workflow_handle(view.id).describe()
        if found.status is not WorkflowExecutionStatus.RUNNING:
            return view  # it has ended, or goes on in a fresh history, since it was looked up
        stuck = await self._stuck(found)
        if stuck is not None:
            return replace(view, status=RunStatus.STUCK, stuck=stuck)
        if any(map(tries_again, found.raw_description.pending_activities)):
            held = replace(held, status=RunStatus.RETRYING)
        task = found.raw_description.pending_workflow_task
        # In a later attempt the one before was of no use: its worker died, or does not have the function. The SDK holds
        # such a task until it times out, and all the while the server calls it started.
        if task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED or task.attempt > 1:
            since = task.original_scheduled_time.ToMicroseconds() / 1e6
            held = waits_for_worker(held, view.function, since)
        return replace(view, status=held.status, waiting_for=held.waiting_for)

    @asks_server
    async def wait(self, run_id: str) -> RunView:
        status, output, error = await self._worker.serve(self._outcome(run_id))
        return replace(await self._describe(run_id), status=status, output=output, error=error)

    async def _describe(self, run_id: str) -> RunView:
        found, view = await self._find(run_id)
        stuck = await self._stuck(found) if view.status is RunStatus.RUNNING else None
        return view if stuck is None else replace(view, status=RunStatus.STUCK, stuck=stuck)

    async def _stuck(self, found: WorkflowExecutionDescription) -> Stuck | None:
        """What of the code does not fit a live run; ``None`` if a worker is not even to go on with it."""
        if not found.raw_description.HasField("pending_workflow_task"):
            return None
        return await self._repair.stuck(found.id, found.run_id or "")

    async def _find(self, run_id: str) -> tuple[WorkflowExecutionDescription, RunView]:
        self._worker.check_alive()
        with _not_found(run_id):
            found = await self.client.get_workflow_handle(run_id).describe()
        return found, view_of(found, await found.memo())

    async def _outcome(self, run_id: str) -> tuple[RunStatus, str | None, dict[str, Any] | None]:
        """Wait for the end of a run: how it ended, and its value or its error."""
        try:
            with _not_found(run_id):
                value = await self.client.get_workflow_handle(run_id, result_type=RawValue).result()
        except WorkflowFailureError as error:
            status, data = failed_status(error.cause)
            if data is not None and data["type"] == "NonDeterminismError" and not data["step"]:
                # Temporal's own check does not always name the step; the history shows how far the run had come.
                data = (await read_records(self.client, run_id))[-1].error
            return status, None, data
        status = completed_status(value)
        return status, text_of(value) if status is RunStatus.COMPLETED else None, None

    @asks_server
    async def cancel(self, run_id: str) -> None:
        stuck = (await self._describe(run_id)).status is RunStatus.STUCK
        with _not_found(run_id):
            handle = self.client.get_workflow_handle(run_id)
            # No worker whose code does not fit could make the wish true.
            await (handle.terminate("cancelled while it was stuck") if stuck else handle.cancel())
        if self._worker.started:
            # Temporal only takes note of the wish; a worker makes it true, here as a rule this one.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._worker.serve(self._outcome(run_id)), CANCEL)

    @asks_server
    async def retry_run(self, run_id: str) -> RunView:
        found, view = await self._find(run_id)
        if view.status is not RunStatus.FAILED:
            raise RunNotFailedError(run_id=run_id, status=view.status.value)
        await self._repair.retry(view, found.run_id or "")
        return await self._describe(run_id)

    @asks_server
    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        found, view = await self._find(run_id)
        event = await self._repair.fork(view, found.run_id or "", after, new_id)
        function = self.find_function(view.function)
        return await self._claim(function, event, await self._describe(new_id))

    @asks_server
    async def history(self, run_id: str) -> History:
        self._worker.check_alive()
        return History(await read_records(self.client, run_id))

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is written.

        For the harness. Whoever waits for a result gets the signal.
        """
        self._host.crash(signal)


@contextmanager
def _not_found(run_id: str) -> Iterator[None]:
    try:
        yield
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise RunNotFoundError(run_id) from None
        raise
