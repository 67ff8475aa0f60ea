"""The worker of a backend: what is registered with Temporal's, how workflows are run, when it starts and stops."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

from temporalio.common import VersioningBehavior
from temporalio.converter import DataConverter, WorkflowSerializationContext
from temporalio.worker import (
    Interceptor,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerDeploymentConfig,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from durably.backends.temporal.activities import StepActivities
from durably.backends.temporal.cron import CronClient, CronClock
from durably.backends.temporal.driver import FunctionWorkflow
from durably.backends.temporal.earlier_hub import EventHub
from durably.backends.temporal.event_facts import EventFact
from durably.backends.temporal.events import EventMark, EventSender, ScheduledEvent
from durably.backends.temporal.host import HOST, TemporalHost
from durably.backends.temporal.hub_worker import hub_worker
from durably.backends.temporal.logged_failure import silence_sdk
from durably.backends.temporal.singleton import SingletonClient, SingletonLock
from durably.backends.temporal.workflow_runner import CheckedRunner

__all__ = [
    "HostInterceptor",
    "Role",
    "TemporalWorker",
    "WorkerOptions",
    "versioning_of",
    "with_shared_modules",
]

T = TypeVar("T")

AGAIN = 2.0
"""After how many seconds a worker that was cancelled, and does not end, is cancelled once more."""

Role = Literal["all", "workflows", "activities"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How a worker works. See :class:`~durably.backends.temporal.TemporalBackend`.

    Attributes:
        role: Whether it runs functions, bodies of steps, or both.
        max_runs: How many tasks of workflows it works on at once, or ``None`` for what Temporal's worker takes.
        max_steps: How many bodies it runs at once, or ``None`` for what Temporal's worker takes.
        fail_on_code_change: Whether a run whose code no longer fits its history is failed.
        options: For ``temporalio.worker.Worker``, as they are.
    """

    role: Role = "all"
    max_runs: int | None = None
    max_steps: int | None = None
    fail_on_code_change: bool
    options: Mapping[str, Any] = field(default_factory=dict)


class TemporalWorker:
    """A worker on a task queue, while it runs.

    Args:
        host: What its workflows and activities share.
        events: Sends events.
        locks: The way to singleton locks.
        crons: The way to the clocks of crons.
        options: How it works.
    """

    def __init__(
        self,
        host: TemporalHost,
        events: EventSender,
        locks: SingletonClient,
        crons: CronClient,
        options: WorkerOptions,
    ) -> None:
        self._host = host
        self._events = events
        self._locks = locks
        self._crons = crons
        self._options = options
        self._worker: Worker | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._running is not None

    def start(self, drain_timeout: float) -> None:
        """Start it in the current event loop.

        Args:
            drain_timeout: How many seconds bodies may go on when it is told to stop.
        """
        silence_sdk()
        steps = StepActivities(self._host)
        self._host.loop = asyncio.get_running_loop()
        self._host.crash.arm(steps.cut_off)
        self._host.histories.arm()
        self._worker = self._make(steps, timedelta(seconds=drain_timeout))
        # A context of its own: a worker that is started inside a body must not seem to be inside it.
        running = self._worker.run() if self._options.role == "activities" else self._run_with_hubs(self._worker)
        self._running = asyncio.get_running_loop().create_task(running, context=contextvars.Context())

    async def _run_with_hubs(self, worker: Worker) -> None:
        host, options = self._host, self._options.options
        given = {**self._shared(HostInterceptor(host)), "workflow_runner": self._runner(UnsandboxedWorkflowRunner())}
        async with hub_worker(host.client, host.task_queue, options, self._events.hub_activities(), **given):
            await worker.run()

    async def stop(self) -> None:
        """Stop it, once its bodies have ended or the time to drain is over; raises what it died of."""
        if self._running is None or self._worker is None:
            return
        if not self._running.done():
            # A worker that is cancelled along with its own tasks ends without saying so to who waits for its shutdown.
            told = asyncio.ensure_future(self._worker.shutdown())
            try:
                while not (told.done() or self._running.done()):
                    again = AGAIN if self._running.cancelling() else None
                    await asyncio.wait({told, self._running}, timeout=again, return_when=asyncio.FIRST_COMPLETED)
                    if again is not None:
                        self._running.cancel()  # it may wait for one of its own tasks that is gone
            except asyncio.CancelledError:
                while self._running.cancelling() and not self._running.done():  # so were all tasks of this loop
                    await asyncio.wait({self._running}, timeout=AGAIN)
                    self._running.cancel()
                raise
            told.cancel()
        running, self._running, self._worker = self._running, None, None
        await running

    async def wait_until(self, stop: asyncio.Event) -> None:
        """Wait until an event is set, or the worker ends by itself.

        Raises:
            ValueError: If it was not started.
        """
        if self._running is None:
            raise ValueError("a worker needs functions=[...]")
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopped, self._running}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def serve(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait for something that needs a worker, unless this one dies."""
        running = self._running  # which it is no more once it was stopped
        if running is None:
            return await waiting
        task = asyncio.ensure_future(waiting)
        crashed = asyncio.ensure_future(self._host.crash.happened.wait())
        try:
            await asyncio.wait({task, running, crashed}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not (running.done() and running.exception() is None):
                self.check_alive()
                raise running.exception() or RuntimeError("the worker has ended")
            return await task
        finally:
            task.cancel()
            crashed.cancel()

    def check_alive(self) -> None:
        """Raise what the harness killed it with, if it did."""
        if self._host.crash.signal is not None:
            raise self._host.crash.signal

    def _make(self, steps: StepActivities, drain: timedelta) -> Worker:
        host, role, options = self._host, self._options.role, self._options.options
        workflows = [
            FunctionWorkflow,
            EventHub,
            EventFact,
            EventMark,
            ScheduledEvent,
            SingletonLock,
            CronClock,
        ]
        activities: list[Callable[..., Any]] = [
            steps.step,
            *self._events.activities(),
            self._locks.is_live,
            *self._crons.activities(),
        ]
        beat = host.heartbeat / 4
        given: dict[str, Any] = {
            "graceful_shutdown_timeout": drain,
            # The SDK holds heartbeats back for most of their timeout: a busy worker would seem dead.
            "max_heartbeat_throttle_interval": beat,
            "default_heartbeat_throttle_interval": beat,
            "no_remote_activities": role == "workflows",
            **_limits(self._options),
            **options,
            **self._shared(HostInterceptor(host)),
        }
        return Worker(
            host.client,
            task_queue=host.task_queue,
            workflows=[] if role == "activities" else workflows,
            activities=activities,
            **given,
        )

    def _shared(self, interceptor: Interceptor) -> dict[str, Any]:
        """What the worker of the runs and that of the hubs are told alike."""
        host, options = self._host, self._options.options
        runner = options.get("workflow_runner", SandboxedWorkflowRunner())
        shared: dict[str, Any] = {
            "workflow_runner": self._runner(with_shared_modules(runner)),
            "interceptors": [*options.get("interceptors", ()), interceptor],
        }
        if host.versioning is not VersioningBehavior.UNSPECIFIED:
            # What hands on events outlives every version: the newest takes it over.
            shared["deployment_config"] = replace(
                options["deployment_config"], default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE
            )
        return shared

    def _runner(self, runner: WorkflowRunner) -> WorkflowRunner:
        contexts = _wants_contexts(self._host.client.data_converter)
        return CheckedRunner(runner, self._host, fail=self._options.fail_on_code_change, contexts=contexts)


class HostInterceptor(Interceptor):
    """Lets workflows find the host of the worker that runs them."""

    def __init__(self, host: TemporalHost) -> None:
        self._host = host

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> None:
        input.unsafe_extern_functions[HOST] = lambda: self._host


def versioning_of(options: Mapping[str, Any]) -> VersioningBehavior:
    """What a worker's options say of its functions' runs when a newer version is deployed: they stay, by default."""
    config: WorkerDeploymentConfig | None = options.get("deployment_config")
    if config is None or not config.use_worker_versioning:
        return VersioningBehavior.UNSPECIFIED
    return config.default_versioning_behavior or VersioningBehavior.PINNED


def with_shared_modules(runner: WorkflowRunner) -> WorkflowRunner:
    """A sandbox that shares modules with the process.

    An agent brings its tools, its models and their clients along, and to load them anew for each run would cost
    seconds. What a function may not do (open a file, sleep, import something that would) is still refused.
    """
    if isinstance(runner, SandboxedWorkflowRunner):
        return replace(runner, restrictions=runner.restrictions.with_passthrough_all_modules())
    return runner


def _wants_contexts(converter: DataConverter) -> bool:
    """Whether a converter does something else for one step's payloads than for another's."""
    anything = WorkflowSerializationContext(namespace="", workflow_id="")
    return converter.with_context(anything) is not converter or converter.external_storage is not None


def _limits(options: WorkerOptions) -> dict[str, int]:
    """How much it does at once, as Temporal's worker calls it."""
    # Without a cache one task at a time: the next one would put the run out, and cut off a closure it is at.
    alone = options.options.get("max_cached_workflows") == 0 and "tuner" not in options.options
    named = {
        "max_concurrent_workflow_tasks": 1 if alone else options.max_runs,
        "max_concurrent_activities": options.max_steps,
        "max_concurrent_local_activities": options.max_steps,
    }
    return {name: limit for name, limit in named.items() if limit is not None}
