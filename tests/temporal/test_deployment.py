"""Workers as they are deployed: in versions that live side by side, and split over processes."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import WorkerDeploymentConfig

from durably.backends.temporal import TemporalBackend
from durably.backends.temporal.worker import Role
from durably.core import Context, Event, current_step, function, run_worker
from durably.core.ids import new_id
from tests.test_layout import PARTS, ROOT

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]


async def build() -> str:
    """The build of the worker that runs this."""
    found: str = current_step().resources["build"]
    return found


@function("patient")
async def patient(ctx: Context[str]) -> list[str]:
    before = await ctx.step.run("before", build)
    if ctx.input == "wait":
        await ctx.step.wait_for_event("go", "deployment/go", match={"to": ctx.run_id})
    return [before, await ctx.step.run("after", build)]


def deployed(client: Client, queue: str, version: WorkerDeploymentVersion) -> TemporalBackend:
    """A worker of a version, whose runs stay with it."""
    config = WorkerDeploymentConfig(
        version=version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )
    return TemporalBackend(
        client,
        task_queue=queue,
        functions=[patient],
        resources={"build": version.build_id},
        worker_options={"deployment_config": config},
    )


async def make_current(client: Client, version: WorkerDeploymentVersion) -> None:
    """New runs go to this version; the server knows it a moment after its worker has begun to poll."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=version.deployment_name, build_id=version.build_id
    )
    for _ in range(300):
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError:
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError(f"the server never heard of {version}")


async def is_waiting(backend: TemporalBackend, run_id: str) -> None:
    """Return once a run waits for its event."""
    run = await backend.run(run_id)
    while not any(record.key == "go" for record in (await run.history()).records):  # noqa: ASYNC110  # asks the server
        await asyncio.sleep(0.05)


async def test_an_old_run_stays_with_its_version_and_a_new_one_goes_to_the_new(client: Client) -> None:
    queue, name = new_id(), new_id()
    first, second = WorkerDeploymentVersion(name, "1"), WorkerDeploymentVersion(name, "2")
    async with deployed(client, queue, first) as old:
        await make_current(client, first)
        pinned = await old.start(patient, "wait")
        await is_waiting(old, pinned.id)
        async with deployed(client, queue, second) as new:
            await make_current(client, second)
            assert await new.invoke(patient, "go on") == ["2", "2"]
            await new.send(Event("deployment/go", {"to": pinned.id}))
            assert await pinned.result() == ["1", "1"]
    async with deployed(client, queue, second) as new:  # of the old version nothing is left
        later = await new.start(patient, "wait")
        await is_waiting(new, later.id)
        await new.send(Event("deployment/go", {"to": later.id}))
        assert await later.result() == ["2", "2"], "the hub of the event has moved to the new version"


async def process() -> int:
    """Where a body runs."""
    return os.getpid()


@function("split")
async def split(ctx: Context[None]) -> list[int]:
    closure = await ctx.step.run("closure", lambda: os.getpid(), output_type=int)
    bodies = await ctx.step.gather(*[lambda: ctx.step.run("process", process)] * 8)
    return [closure, *bodies]


async def work(address: str, queue: str, role: Role) -> None:
    """One process: it serves until it is told to stop."""
    client = await Client.connect(address)
    await run_worker(TemporalBackend(client, task_queue=queue, functions=[split], role=role))


async def test_workflows_in_one_process_and_their_bodies_in_others(temporal_address: str, client: Client) -> None:
    queue = new_id()
    path = os.pathsep.join(str(ROOT / part) for part in (*PARTS, "."))
    workers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, temporal_address, queue, role),
            env={**os.environ, "PYTHONPATH": path},
            cwd=ROOT,
        )
        for role in ("workflows", "activities", "activities")
    ]
    try:
        caller = TemporalBackend(client, task_queue=queue)
        runs = [await caller.start("split") for _ in range(3)]
        for run in runs:
            closure, *bodies = await run.result()
            assert closure == workers[0].pid
            assert set(bodies) <= {worker.pid for worker in workers[1:]}
    finally:
        for worker in workers:
            worker.terminate()
            await worker.wait()


if __name__ == "__main__":
    _, address, queue, role = sys.argv
    asyncio.run(work(address, queue, "workflows" if role == "workflows" else "activities"))
    os._exit(0)  # the SDK's native threads now and then abort an interpreter that takes its time to end
