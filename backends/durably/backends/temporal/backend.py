"""The backend: starting runs on a Temporal cluster, looking at them, and the worker that runs them."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar

from pydantic import SecretStr
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from durably.backends.temporal.events import Post
from durably.backends.temporal.host import Host
from durably.backends.temporal.outcome import STATUSES, ended_with, how_it_failed
from durably.backends.temporal.payloads import MAX_PAYLOAD_BYTES, STATUS, check_size, raw, text_of
from durably.backends.temporal.records import read_records
from durably.backends.temporal.registry import Names
from durably.backends.temporal.singleton import Slots, slot_of
from durably.backends.temporal.worker import Role, make_worker, versioning_of
from durably.core import Backend, Capabilities, DurablyError, Event, Function, FunctionRef, Run, RunNotFoundError
from durably.core.backend import RunStatus, RunView
from durably.core.history import History
from durably.core.ids import derive_id, new_id

__all__ = ["TemporalBackend"]

T = TypeVar("T")

CANCEL = 15.0
"""How many seconds ``cancel()`` waits for the run to stop. A closure that runs holds it up for up to 8."""


class TemporalBackend(Backend):
    """Runs durable functions on a Temporal cluster.

    A function is a workflow type, a run a workflow execution with the run's id, a step an activity named after the
    step. ``async with`` starts a worker on the task queue; :meth:`run_worker` does so for a whole process.

    Args:
        client: A connected client. Its data converter, interceptors and TLS settings are kept.
        task_queue: Where the functions' workflows and activities go.
        functions: What this process runs. Without any, it only starts runs and sends events.
        hub_queue: The task queue of the workflows that hand on events. Programs that share events name the same;
            left out, the task queue.
        queues: The task queues of functions that other programs serve, for ``step.invoke`` by reference.
        role: ``"workflows"`` runs functions without the bodies of their steps, ``"activities"`` those bodies only.
        heartbeat: After how long without a sign of life a worker counts as dead, and its bodies start again elsewhere.
        drain: How long bodies may go on when the worker is told to stop. What is not done then starts again elsewhere.
        continue_after: A run goes on in a fresh history once its own has got this many events.
        on_code_change: What becomes of a run whose code no longer fits its history: ``"fail"`` ends it with
            ``NonDeterminismError``; ``"wait"`` leaves it, as Temporal does, until the old code is back.
        worker_options: Passed to ``temporalio.worker.Worker`` as they are: versioning, tuners, cache sizes.
        resources: See :class:`~durably.core.Backend`.
        secrets: See :class:`~durably.core.Backend`.
        max_payload_bytes: The largest value a step may return; left out, a little less than Temporal's own limit.
    """

    name = "temporal"
    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        gaps={
            "at_most_once closures": "Temporal writes down that a closure ran only after it ran; name the body instead",
            "closures in a full cache": "Temporal's worker may put a run out of its cache while a closure of it runs, "
            "which then runs again, as after a crash; name the body instead",
            "evict": "Temporal's own is max_cached_workflows=0 in worker_options",
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
        heartbeat: timedelta = timedelta(seconds=30),
        drain: timedelta = timedelta(seconds=10),
        continue_after: int = 20_000,
        on_code_change: Literal["fail", "wait"] = "fail",
        worker_options: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
    ) -> None:
        super().__init__(functions, resources=resources, secrets=secrets)
        self.client = client
        self.task_queue = task_queue
        self._role: Role = role
        self._drain = drain
        self._on_code_change = on_code_change
        self._worker_options = dict(worker_options or {})
        self._running: asyncio.Task[None] | None = None
        self._worker: Worker | None = None
        self._host = Host(
            client=client,
            task_queue=task_queue,
            hub_queue=hub_queue or task_queue,
            functions=self.functions,
            queues=dict(queues or {}),
            names=Names(self.functions, self.resources),
            resources=self.resources,
            redactor=self.redactor,
            max_payload_bytes=max_payload_bytes or self.capabilities.max_payload_bytes,
            heartbeat=heartbeat,
            continue_after=continue_after,
            versioning=versioning_of(self._worker_options),
            probe=lambda: self.probe,
        )
        self._post = Post(client, self._host.hub_queue, self._host.task_timeout)
        self._slots = Slots(client, self._host.hub_queue, self._host.task_timeout)

    # -- the worker

    async def __aenter__(self) -> Self:
        """Start a worker; unfinished runs go on by themselves."""
        if self._running is not None:
            raise RuntimeError("this temporal backend is already running; use one 'async with' for each backend")
        if self.functions:
            self._host.crash.arm()
            self._host.recordings.arm()
            self._worker = make_worker(
                self._host,
                self._post,
                self._slots,
                role=self._role,
                drain=self._drain,
                fail_on_code_change=self._on_code_change == "fail",
                options=self._worker_options,
            )
            # A context of its own: a worker that is started inside a body must not seem to be inside it.
            self._running = asyncio.get_running_loop().create_task(self._worker.run(), context=contextvars.Context())
            await self._subscribe()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the worker. Its runs go on where another one is up, or when this one is again."""
        if self._running is None or self._worker is None:
            return
        if not self._running.done():
            await self._worker.shutdown()
        running, self._running, self._worker = self._running, None, None
        await running

    async def run_worker(self) -> None:
        """Work until the process is told to stop, by SIGTERM or SIGINT, then drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, stop.set)
        try:
            async with self:
                if self._running is None:
                    raise ValueError("a worker needs functions=[...]")
                stopped = asyncio.ensure_future(stop.wait())
                await asyncio.wait({stopped, self._running}, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
        finally:
            for each in signals:
                loop.remove_signal_handler(each)

    async def _subscribe(self) -> None:
        for function in self.functions.values():
            for name in function.triggers:
                await self._post.tell(name, "subscribe", {function.id: self.task_queue})

    # -- the port

    async def send(self, *events: Event) -> list[str]:
        named = [event if event.id else event.model_copy(update={"id": new_id()}) for event in events]
        masked = [Event.model_validate_json(self.redactor.text(event.model_dump_json())) for event in named]
        for event in masked:
            check_size([event.model_dump_json()], step="", limit=self._host.max_payload_bytes)
        return await self._post.send(masked)

    async def runs(
        self, *, function: FunctionRef[Any, Any] | str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[Run[Any]]:
        name = function.id if isinstance(function, FunctionRef) else function
        query = f"TaskQueue = '{self.task_queue}' AND ExecutionStatus != 'ContinuedAsNew'"
        if name is not None:
            query += f" AND WorkflowType = '{name}'"
        found: list[Run[Any]] = []
        async for execution in self.client.list_workflows(query):
            if execution.workflow_type.startswith("durably."):
                continue
            view = _view_of(execution, await execution.memo())
            if status in (None, view.status):
                found.append(Run(self, self._find(view.function), view))
            if len(found) == limit:
                break
        return found

    async def _start(self, function: FunctionRef[Any, Any], data: str, run_id: str | None) -> RunView:
        self._alive()
        run_id = run_id or new_id()
        text = f'{{"name":"durably/function.started","data":{data},"id":"{derive_id("start", run_id, "")}"}}'
        event = self.redactor.text(text)
        check_size([event], step="", limit=self._host.max_payload_bytes)
        try:
            await self.client.start_workflow(
                function.id,
                raw(event),
                id=run_id,
                task_queue=self._host.queues.get(function.id, self.task_queue),
                task_timeout=self._host.task_timeout,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            view = await self._view(run_id)
            if view.function != function.id:
                raise DurablyError(
                    f"run {run_id!r} belongs to function {view.function!r}, not {function.id!r}"
                ) from None
            return view
        return await self._claim(function, event, RunView(id=run_id, function=function.id, status=RunStatus.RUNNING))

    async def _claim(self, function: FunctionRef[Any, Any], event: str, view: RunView) -> RunView:
        """Ask for a new run's singleton place in the order of the starts; the run asks too, in case we die here."""
        if isinstance(function, Function) and function.singleton is not None:
            slot = slot_of(self._host.hub_queue, function, Event.model_validate_json(event))
            view = await self._describe(view.id)
            await self._slots.claim(slot or "", view.id, function.singleton.mode, view.created_at)
        return view

    async def _view(self, run_id: str) -> RunView:
        view = await self._describe(run_id)
        if view.status.final:
            status, output, error = await self._outcome(run_id)
            view = replace(view, status=status, output=output, error=error)
        return view

    async def _wait(self, run_id: str) -> RunView:
        status, output, error = await self._with_worker(self._outcome(run_id))
        return replace(await self._describe(run_id), status=status, output=output, error=error)

    async def _describe(self, run_id: str) -> RunView:
        self._alive()
        with _not_found(run_id):
            found = await self.client.get_workflow_handle(run_id).describe()
        return _view_of(found, await found.memo())

    async def _outcome(self, run_id: str) -> tuple[RunStatus, str | None, dict[str, Any] | None]:
        """Wait for the end of a run: how it ended, and its value or its error."""
        try:
            with _not_found(run_id):
                value = await self.client.get_workflow_handle(run_id, result_type=RawValue).result()
        except WorkflowFailureError as error:
            status, data = how_it_failed(error.cause)
            if data is not None and data["type"] == "NonDeterminismError" and not data["step"]:
                data = (await read_records(self.client, run_id))[-1].error
            return status, None, data
        status = ended_with(value)
        return status, text_of(value) if status is RunStatus.COMPLETED else None, None

    async def _with_worker(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait for something that needs the worker, unless the worker dies."""
        if self._running is None:
            return await waiting
        task = asyncio.ensure_future(waiting)
        crashed = asyncio.ensure_future(self._host.crash.happened.wait())
        try:
            await asyncio.wait({task, self._running, crashed}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not (self._running.done() and self._running.exception() is None):
                self._alive()
                raise self._running.exception() or RuntimeError("the worker has ended")
            return await task
        finally:
            task.cancel()
            crashed.cancel()

    def _alive(self) -> None:
        if self._host.crash.signal is not None:
            raise self._host.crash.signal

    def crash(self, signal: BaseException) -> None:
        """Die as a process does: nothing more is written.

        For the harness. Whoever waits for a result gets the signal.
        """
        self._host.crash(signal)

    async def _cancel(self, run_id: str) -> None:
        with _not_found(run_id):
            await self.client.get_workflow_handle(run_id).cancel()
        if self._running is not None:
            # Temporal only takes note of the wish; a worker makes it true, here as a rule this one.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._with_worker(self._outcome(run_id)), CANCEL)

    async def _history(self, run_id: str) -> History:
        self._alive()
        return History(await read_records(self.client, run_id))


@contextmanager
def _not_found(run_id: str) -> Iterator[None]:
    try:
        yield
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise RunNotFoundError(run_id) from None
        raise


def _view_of(found: WorkflowExecution, memo: Mapping[str, Any]) -> RunView:
    status = STATUSES[found.status or WorkflowExecutionStatus.RUNNING]
    parent = found.parent_id
    return RunView(
        id=found.id,
        function=found.workflow_type,
        status=RunStatus(memo.get(STATUS, status)),
        created_at=found.start_time.timestamp(),
        ended_at=found.close_time.timestamp() if found.close_time else 0.0,
        parent=None if parent is None or parent.startswith("durably.") else parent,
    )
