"""The Temporal worker of a backend: what is registered with it, and in which sandbox workflows run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from temporalio.common import VersioningBehavior
from temporalio.converter import DataConverter, WorkflowSerializationContext
from temporalio.worker import (
    Interceptor,
    Worker,
    WorkerDeploymentConfig,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from durably.backends.temporal.activities import StepActivities
from durably.backends.temporal.code_change.workflow_runner import RecordingRunner
from durably.backends.temporal.crash import MortalRunner
from durably.backends.temporal.driver import FunctionWorkflow
from durably.backends.temporal.events import EventHub, Post, ScheduledEvent
from durably.backends.temporal.host import HOST, Host
from durably.backends.temporal.singleton import Slot, Slots
from durably.backends.temporal.system import SystemBodies

__all__ = ["Role", "make_worker", "versioning_of"]

Role = Literal["all", "workflows", "activities"]


class _Introduction(Interceptor):
    """Lets workflows find the host of the worker that runs them."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> None:
        input.unsafe_extern_functions[HOST] = lambda: self._host


def make_worker(
    host: Host,
    post: Post,
    slots: Slots,
    *,
    role: Role,
    drain: timedelta,
    fail_on_code_change: bool,
    options: Mapping[str, Any],
) -> Worker:
    """A worker for a host, not yet running."""
    system = SystemBodies(post, slots, host.client)
    workflows = [FunctionWorkflow, EventHub, ScheduledEvent, Slot]
    activities: list[Callable[..., Any]] = [StepActivities(host, system).step, post.publish, slots.is_live]
    beat = host.heartbeat / 4
    sandbox = _sharing(options.get("workflow_runner", SandboxedWorkflowRunner()))
    runner = RecordingRunner(sandbox, host, fail=fail_on_code_change)
    given: dict[str, Any] = {
        "graceful_shutdown_timeout": drain,
        "max_heartbeat_throttle_interval": beat,
        "default_heartbeat_throttle_interval": beat,
        "no_remote_activities": role == "workflows",
        **_limits(options),
        **options,
        "workflow_runner": MortalRunner(runner, host.crash, contexts=_minds_contexts(host.client.data_converter)),
        "interceptors": [*options.get("interceptors", ()), _Introduction(host)],
    }
    if host.versioning is not VersioningBehavior.UNSPECIFIED:
        # What hands on events outlives every version: the newest takes it over.
        given["deployment_config"] = replace(
            options["deployment_config"], default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE
        )
    return Worker(
        host.client,
        task_queue=host.task_queue,
        workflows=[] if role == "activities" else workflows,
        activities=activities,
        **given,
    )


def _sharing(runner: WorkflowRunner) -> WorkflowRunner:
    """A sandbox that shares modules with the process.

    An agent brings its tools, its models and their clients along, and to load them anew for each run would cost
    seconds. What a function may not do (open a file, sleep, import something that would) is still refused.
    """
    if isinstance(runner, SandboxedWorkflowRunner):
        return replace(runner, restrictions=runner.restrictions.with_passthrough_all_modules())
    return runner


def versioning_of(options: Mapping[str, Any]) -> VersioningBehavior:
    """What a worker's options say of its functions' runs when a newer version is deployed: they stay, by default."""
    config: WorkerDeploymentConfig | None = options.get("deployment_config")
    if config is None or not config.use_worker_versioning:
        return VersioningBehavior.UNSPECIFIED
    return config.default_versioning_behavior or VersioningBehavior.PINNED


def _minds_contexts(converter: DataConverter) -> bool:
    """Whether a converter does something else for one step's payloads than for another's."""
    anything = WorkflowSerializationContext(namespace="", workflow_id="")
    return converter.with_context(anything) is not converter or converter.external_storage is not None


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without a cache one task at a time: the next one would put the run out, and cut off a closure it is at."""
    alone = options.get("max_cached_workflows") == 0 and "tuner" not in options
    return {"max_concurrent_workflow_tasks": 1} if alone else {}
